#!/usr/bin/env bash
# Everything CI checks, with its own set-up: run.sh [STEP...]
#
# Without arguments all steps run, in the order of the list below; a step that
# fails does not keep the others from running, and the end says which did. Each
# step sets up and takes down the servers it needs, and the last one looks for
# anything left on the machine.
set -euo pipefail
cd "$(dirname "$0")/.."
export FSB_TEST_CACHE=${FSB_TEST_CACHE:-$PWD/.cache}
# Skipped is not passed: a test whose subject can't start here fails the run.
export FSB_TEST_REQUIRE=${FSB_TEST_REQUIRE:-all}
export FSB_TEST_FSBD=$PWD/bin/fsbd FSB_TEST_FSB=$PWD/bin/fsb
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1
steps=(setup build lint unit gvisor docker fuzz script crash clients sdk readme demo leaks)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=$FSB_TEST_CACHE/bin
mkdir -p "$bin"

# Packages that link gVisor take no race detector: the sentry can't run under
# it. Their own concurrency is in packages that can.
plain=(./internal/backend/gvisor/... ./cmd/fsbd/... ./bench/...)
pure() { go list ./... | grep -vE 'internal/backend/(gvisor|docker)|cmd/fsbd|/bench|/test/(script|crash)'; }

step_setup() {
  local missing=()
  for p in docker.io nginx-light iproute2 iptables procps e2fsprogs curl jq shellcheck gcc libc6-dev protobuf-compiler python3-venv; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "as root: apt-get install ${missing[*]}"; return 1; }
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$work/apt.log" 2>&1 || { tail -n 20 "$work/apt.log"; return 1; }
  fi
  go mod download
  (cd tools && go build -o "$bin/" github.com/golangci/golangci-lint/v2/cmd/golangci-lint golang.org/x/vuln/cmd/govulncheck \
    google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go)
  go run ./internal/testenv/leakcheck before "$FSB_TEST_CACHE/leaks.before"
}

step_build() { make build; }

step_lint() {
  go vet ./...
  go mod tidy -diff
  "$bin/golangci-lint" run ./...
  vulnerabilities
  git ls-files '*.sh' .ci/run | xargs shellcheck
  PATH=$bin:$PATH ./proto/generate.sh check
}

# govulncheck needs its database from the network. Where that can't be reached
# the run says so and goes on; any other failure is one.
vulnerabilities() {
  if "$bin/govulncheck" ./... >"$work/vuln.log" 2>&1; then
    cat "$work/vuln.log"
  elif grep -q '^govulncheck: fetching vulnerabilities' "$work/vuln.log"; then
    echo "NOT CHECKED: the vulnerability database can't be reached from here"
  else
    cat "$work/vuln.log"
    return 1
  fi
}

step_unit() { pure | CGO_ENABLED=1 xargs go test -race -count=1; }
step_gvisor() { CGO_ENABLED=0 go test -count=1 -timeout 15m "${plain[@]}"; }
step_docker() { CGO_ENABLED=1 go test -race -count=1 -timeout 15m ./internal/backend/docker/...; }

step_fuzz() { # each target for a few seconds; longer by hand
  local dir target
  grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do
    grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | awk '{print $2}' | while read -r target; do
      go test -run '^$' -fuzz "^$target\$" -fuzztime "${FSB_FUZZTIME:-5s}" "$dir" </dev/null
    done
  done
}

step_script() {
  local engine
  engine=$(mktemp -d /tmp/fsbs.XXXXXX)
  # shellcheck disable=SC2064 # the folder of now
  trap "./test/env/dockerd.sh stop $engine; rm -rf $engine" EXIT
  FSB_DOCKER_HOST=$(./test/env/dockerd.sh start "$engine") CGO_ENABLED=0 go test -count=1 -timeout 15m ./test/script/...
}
step_crash() { ./test/crash/run.sh; }
step_clients() { ./test/clients/run.sh; }

step_sdk() { # as its README says; the tests that need a daemon have run among the clients'
  local venv=$FSB_TEST_CACHE/venvs/sdk-dev
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  (cd sdk/python && "$venv/bin/pip" install -q -e ".[dev]" && "$venv/bin/pytest" -q tests/ --ignore tests/test_live.py)
}

step_readme() { ./test/readme/run.sh; }
step_demo() { make demo; }
step_leaks() { go run ./internal/testenv/leakcheck after "$FSB_TEST_CACHE/leaks.before"; }

[ $# -eq 0 ] && set -- "${steps[@]}"
[ "$1" = lint ] && [ $# -eq 1 ] && set -- setup lint
failed=() passed=0 began=$SECONDS
for name; do
  from=$SECONDS
  echo "=== $name"
  # Not as a condition: that would switch errexit off inside the step.
  set +e
  (set -e; "step_$name") </dev/null
  code=$?
  set -e
  if [ "$code" = 0 ]; then
    passed=$((passed + 1))
    echo "--- $name: ok, $((SECONDS - from)) s"
  else
    failed+=("$name")
    echo "--- $name: FAILED, $((SECONDS - from)) s"
    case $name in setup | build) break ;; esac # nothing after them can tell anything
  fi
done
echo "all steps took $((SECONDS - began)) s${failed[*]:+; failed: ${failed[*]}}"
echo "steps: $passed passed, ${#failed[@]} failed"
[ ${#failed[@]} -eq 0 ]
