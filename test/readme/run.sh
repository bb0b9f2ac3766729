#!/usr/bin/env bash
# Runs every command of the README, in its order, as a reader would, against a
# daemon on the default ports. Images come from a registry on loopback through
# the mirror setting that users have too.
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=${FSB_TEST_CACHE:-$PWD/.cache}
work=$(mktemp -d)
registry='' daemon=''
finish() {
  code=$?
  daemon=$(cat "$work/data/fsbd.lock" 2>/dev/null || true)
  for pid in $daemon $registry; do kill "$pid" 2>/dev/null || true; done
  for pid in $daemon $registry; do
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
  [ "$code" = 0 ] || tail -n 40 "$work/output" 2>/dev/null || true
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

for port in 8080 50051; do
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "readme: port $port is taken; the README's commands need it" >&2
    exit 1
  fi
done

./test/images/build.sh alpine-python "$work/alpine"
./test/images/build.sh python "$work/python"
mkdir -p "$cache/bin"
go build -o "$cache/bin/registry" ./test/images/registry
"$cache/bin/registry" library/alpine:latest="$work/alpine" library/python:3.11-slim="$work/python" >"$work/url" &
registry=$!
for _ in $(seq 100); do [ -s "$work/url" ] && break; sleep 0.05; done

[ -x "$cache/venvs/readme/bin/python" ] || python3 -m venv "$cache/venvs/readme"
mkdir "$work/bin"
printf '#!/bin/sh\nexec "$@"\n' >"$work/bin/sudo" # this runs as root already
chmod +x "$work/bin/sudo"

# One script of all blocks: sh as they stand, python through the interpreter
# that the reader's pip belongs to.
python3 - README.md >"$work/script" <<'PY'
import re, shlex, sys
text = open(sys.argv[1]).read()
blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.M | re.S)
assert len(blocks) >= 4, "the README has lost its commands"
print("set -euo pipefail\nset -x")
for kind, body in blocks:
    print(body if kind == "sh" else "python -c " + shlex.quote(body))
PY

PATH=$work/bin:$cache/venvs/readme/bin:$PATH FSB_DATA_DIR=$work/data FSB_REGISTRY_MIRRORS=$(cat "$work/url") FSB_DOCKER_HOST=off \
  bash "$work/script" >"$work/output" 2>&1 </dev/null

for words in '^42$' '^Linux ' 'Hello Python in Sandbox' '"gvisor"' '"status":"running"\|"status": "running"'; do
  grep -q "$words" "$work/output" || { echo "readme: the output lacks $words" >&2; exit 1; }
done
# The last command leaves a sandbox, as the README's reader would see it.
for id in $(./bin/fsb --json ps | python3 -c 'import json, sys; print(*[s["id"] for s in json.load(sys.stdin)])'); do
  ./bin/fsb stop "$id"
done
echo "readme: every command works"
