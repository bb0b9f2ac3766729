#!/usr/bin/env bash
# Kills fsbd again and again while it is at work, see doc.go.
#
#   run.sh [go test flags]
#
# Uses the engine at FSB_DOCKER_HOST, else starts one of its own where dockerd
# is installed. FSB_TEST_REQUIRE=all makes a backend that can't be tested here
# a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
root=$(cd ../.. && pwd -P)

if [ -z "${FSB_DOCKER_HOST:-}" ] && [ "$(id -u)" = 0 ] && command -v dockerd >/dev/null; then
	engine=$(mktemp -d /tmp/fsbce.XXXXXX)
	trap '"$root/test/env/dockerd.sh" stop "$engine" || true; rm -rf "$engine"' EXIT
	FSB_DOCKER_HOST=$("$root/test/env/dockerd.sh" start "$engine")
	export FSB_DOCKER_HOST
fi
if [ -z "${FSB_TEST_FSBD:-}" ] && [ -x "$root/bin/fsbd" ]; then
	export FSB_TEST_FSBD=$root/bin/fsbd
fi
CGO_ENABLED=0 go test -count=1 -v -timeout 5m "$@" .
