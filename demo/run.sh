#!/usr/bin/env bash
# Runs the quick start against a daemon of its own on embedded gVisor, prints
# each step with its time, and leaves nothing behind. Needs root for gVisor.
#   run.sh [--image REF]
set -euo pipefail
cd "$(dirname "$0")/.."

image=
[ "${1:-}" = --image ] && image=$2
work=$(mktemp -d)
daemon=
finish() {
  code=$?
  if [ -n "$daemon" ]; then kill "$daemon" 2>/dev/null || true; wait "$daemon" 2>/dev/null || true; fi
  [ "$code" = 0 ] || { echo; echo "The daemon's last words:"; tail -n 20 "$work/fsbd.log" 2>/dev/null || true; }
  rm -rf "$work"
  exit "$code"
}
trap finish EXIT

now() { date +%s%N; }
since() { echo $((($(now) - $1) / 1000000)); }
step() { # step NAME COMMAND...: runs it quietly and prints how long it took
  local name=$1 from; shift
  from=$(now)
  if ! "$@" >"$work/step.log" 2>&1; then
    printf '%-46s failed\n' "$name"; cat "$work/step.log"; exit 1
  fi
  printf '%-46s %8d ms\n' "$name" "$(since "$from")"
}

if [ "$(id -u)" != 0 ]; then
  echo "make demo needs root: gVisor makes namespaces and control groups. Try: sudo make demo" >&2
  exit 1
fi

venv=${FSB_TEST_CACHE:-.cache}/venvs/demo
if [ ! -x "$venv/bin/python" ]; then step "make a Python environment" python3 -m venv "$venv"; fi
step "install the SDK" "$venv/bin/pip" install -q --disable-pip-version-check ./sdk/python

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start_daemon() {
  FSB_DATA_DIR=$work/data FSB_HTTP_ADDR=127.0.0.1:$port FSB_GRPC_ADDR=127.0.0.1:0 FSB_DOCKER_HOST=off \
    FSB_IMAGE_DIRS=$work ./bin/fsbd >"$work/fsbd.log" 2>&1 </dev/null &
  daemon=$!
  for _ in $(seq 200); do
    curl -sf "http://127.0.0.1:$port/readyz" >/dev/null && return
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
  done
  cat "$work/fsbd.log"; return 1
}
from=$(now)
start_daemon
printf '%-46s %8d ms\n' "start fsbd, no Docker and no KVM" "$(since "$from")"

# A public image if a registry answers, else one made of Debian packages.
if [ -z "$image" ]; then
  if ./bin/fsb -H "127.0.0.1:$port" --timeout 300 run python:3.11-slim -- true >"$work/step.log" 2>&1; then
    image=python:3.11-slim
  else
    echo "No public registry answers from here, so a small Python image is made of Debian packages."
    step "build the image" ./test/images/build.sh python "$work/image"
    image=oci:$work/image
  fi
fi
"$venv/bin/python" demo/quickstart.py "http://127.0.0.1:$port" "$image"
