#!/usr/bin/env bash
# Tests the service against the installed tree: DF11_PREFIX, or target/stage, which is made if it is missing. It takes about a
# minute, and uses loopback addresses only.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
prefix=${DF11_PREFIX:-$root/target/stage}
step() { echo "-- $*"; "$@"; }

for tool in "${CC:-cc}" pkg-config; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
PATH=$("$root/bindings/go/toolchain.sh"):$PATH
go version

if ! [ -e "$prefix/lib/pkgconfig/df11.pc" ]; then
    [ -z "${DF11_PREFIX:-}" ] || { echo "there is no df11.pc under $prefix" >&2; exit 1; }
    step make -C "$root" --no-print-directory install PREFIX="$prefix"
fi
DF11_PREFIX=$(cd "$prefix" && pwd)
export DF11_PREFIX PKG_CONFIG_PATH=$DF11_PREFIX/lib/pkgconfig
export LD_LIBRARY_PATH=$DF11_PREFIX/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
# go.mod requires no module outside the repository, so nothing is downloaded.
GOFLAGS="-mod=readonly $("$root/bindings/go/flags.sh" "$DF11_PREFIX")"
export GOFLAGS CGO_ENABLED=1

unformatted=$(gofmt -l .)
[ -z "$unformatted" ] || { echo "not as gofmt writes it: $unformatted" >&2; exit 1; }
step go vet ./...

# With the static library the program runs without the installed tree.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
step go build -tags df11_static -o "$scratch/go-service" .
LD_LIBRARY_PATH= "$scratch/go-service" -help 2>"$scratch/help" && grep -q DF11_SERVICE_MODEL "$scratch/help" ||
    { cat "$scratch/help"; exit 1; }
echo "static program: runs without the installed tree"

step go test -count=1 ./...
# With the race detector, and with a collector that runs all the time and checks of every pointer that reaches C.
step go test -count=1 -short -race ./...
GOGC=1 GODEBUG=cgocheck=1 step go test -count=1 -short ./...
