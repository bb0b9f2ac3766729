#!/bin/sh
# Regenerates the Go code for sandbox.proto, with the plugins of the versions
# that go.mod names. It needs protoc (Debian: protobuf-compiler); the version
# of protoc is not written into the output, so that any recent one will do.
# "generate.sh check" changes nothing and fails if the committed code differs.
set -eu
cd "$(dirname "$0")"
here=github.com/flash-sandbox/flash-sandbox/proto/sandbox
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go build -o "$work/" google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
mkdir "$work/out"
protoc -I sandbox --plugin="$work/protoc-gen-go" --plugin="$work/protoc-gen-connect-go" \
	--go_out="$work/out" --go_opt=module="$here" --go_opt="Msandbox.proto=$here;sandbox" \
	--connect-go_out="$work/out" --connect-go_opt=module="$here" --connect-go_opt="Msandbox.proto=$here;sandbox" \
	sandbox.proto
sed -i '/^\/\/ *\(- \)\?protoc  *v/d; /^\/\/ \tprotoc  */d' "$work/out/sandbox.pb.go"
for f in sandbox.pb.go sandboxconnect/sandbox.connect.go; do
	if [ "${1:-}" = check ]; then
		diff -u "sandbox/$f" "$work/out/$f"
	else
		mkdir -p "sandbox/$(dirname "$f")"
		cp "$work/out/$f" "sandbox/$f"
	fi
done
