#!/usr/bin/env bash
# Tests the Python clients against a daemon: the published versions, unmodified,
# with the cases below cases/, and the one in sdk/python with the same cases and
# its own tests.
#
#   run.sh [pytest arguments]
#
# The daemon is that at FSB_TEST_ADDR and FSB_TEST_GRPC_ADDR (host:port) if these
# are set; cases/conftest.py lists what else may be said of it. Otherwise
# stack.py starts one with everything it needs, and checks in the end that
# nothing is left.
#
#   FSB_TEST_TYPES     backends to test (default: gvisor,docker)
#   FSB_TEST_CLIENTS   clients to test (default: "0.1.1 0.1.7 sdk")
#   FSB_TEST_CACHE     where venvs and images are kept (default: .cache/)
#   FSB_TEST_LOGS      where logs of what was started are kept (default: nowhere)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
export FSB_TEST_TYPES=${FSB_TEST_TYPES:-gvisor,docker}
read -ra clients <<<"${FSB_TEST_CLIENTS:-0.1.1 0.1.7 sdk}"

if [ -z "${FSB_TEST_ADDR:-}" ]; then
	"$here/venvs.sh" "${clients[@]}" >/dev/null # before anything is started
	logs=()
	[ -z "${FSB_TEST_LOGS:-}" ] || logs=(--logs "$FSB_TEST_LOGS")
	exec "${FSB_TEST_PYTHON:-python3}" "$here/stack.py" "${logs[@]}" -- "${BASH_SOURCE[0]}" "$@"
fi

venvs=$("$here/venvs.sh" "${clients[@]}")
failed=()
while read -r name python <&3; do
	echo "== client $name"
	(cd "$here" && "$python" -m pytest -q "$@") || failed+=("$name")
	[ "$name" = sdk ] || continue
	echo "== sdk/python"
	(cd "$root/sdk/python" && "$python" -m pytest -q -p no:cacheprovider tests/ "$@") || failed+=("sdk/python")
	(cd "$root/sdk/python" && "$python" -m mypy --cache-dir=/dev/null) || failed+=("types of sdk/python")
done 3<<<"$venvs"

if [ ${#failed[@]} -gt 0 ]; then
	echo "run.sh: failed: ${failed[*]}" >&2
	exit 1
fi
