#!/usr/bin/env bash
# Tests the Go binding against the installed tree: DF11_PREFIX, or target/stage, which is made if it is missing.
# The device tests run on the emulated CUDA driver, or on the driver that DF11_LIBCUDA names.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
prefix=${DF11_PREFIX:-$root/target/stage}
step() { echo "-- $*"; "$@"; }

for tool in "${CC:-cc}" pkg-config python3; do
    command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done

PATH=$(./toolchain.sh):$PATH
go version

if ! [ -e "$prefix/lib/pkgconfig/df11.pc" ]; then
    [ -z "${DF11_PREFIX:-}" ] || { echo "there is no df11.pc under $prefix" >&2; exit 1; }
    step make -C "$root" --no-print-directory install PREFIX="$prefix"
fi
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export CGO_ENABLED=1
own=$(./flags.sh "$prefix")
# go.mod requires no other module, so nothing is downloaded.
export GOFLAGS="-mod=readonly $own"

if [ -z "${DF11_LIBCUDA:-}" ]; then
    step cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p df11-emulator
    export DF11_LIBCUDA=${CARGO_TARGET_DIR:-$root/target}/debug/libdf11_emulator.so
fi

unformatted=$(gofmt -l . "$root/examples"/*.go)
[ -z "$unformatted" ] || { echo "not as gofmt writes it: $unformatted" >&2; exit 1; }
# A Go module that is a folder of a repository consists of that folder only, so it needs its own licences.
for license in LICENSE-APACHE LICENSE-MIT; do cmp "$root/$license" "$license"; done
step go vet ./...
step go vet -tags df11_static ./...
# Without cgo the package compiles on every system, and says at run time what is missing. What it has then is generated from
# what it has with cgo.
step go run ./internal/stub -check
for system in linux/amd64 darwin/arm64 windows/amd64; do
    CGO_ENABLED=0 GOOS=${system%/*} GOARCH=${system#*/} step go build ./...
done
CGO_ENABLED=0 step go test -count=1 ./internal/stub
GODEBUG=cgocheck=1 step go test -count=1 .
# The collector runs all the time, and every pointer that reaches C and every memory access of goroutines is checked.
GOGC=1 GODEBUG=cgocheck=1 GOEXPERIMENT=cgocheck2 step go test -count=1 -race .

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The cost of a call from Go over one from C.
step go run ./internal/cost -rounds 5 "$prefix/bin/df11"

# The archive instead of the shared library: nothing is loaded at run time.
step go test -count=1 -tags df11_static -c -o "$scratch/static.test" .
if ldd "$scratch/static.test" | grep -q df11; then
    echo "the static program needs libdf11.so" >&2
    exit 1
fi
LD_LIBRARY_PATH= step "$scratch/static.test"

# Another program with this module in its vendor folder. It needs only the module's Go and C files and the installed
# header.
mkdir "$scratch/consumer"
cp "$root/examples/decompress.go" "$root/examples/driver.h" "$scratch/consumer/"
(
    cd "$scratch/consumer"
    sed -i '/^\/\/go:build ignore$/d' decompress.go
    go mod init example.com/consumer 2>/dev/null
    go mod edit -require=github.com/libdf11/libdf11/bindings/go@v0.0.0 -replace="github.com/libdf11/libdf11/bindings/go=$root/bindings/go"
    GOFLAGS= step go mod vendor
    # Built from the vendor folder only.
    go mod edit -dropreplace=github.com/libdf11/libdf11/bindings/go -replace=github.com/libdf11/libdf11/bindings/go=/nowhere
    sed -i "s|=> $root/bindings/go|=> /nowhere|" vendor/modules.txt
    for tags in "" df11_static; do
        GOFLAGS="-mod=vendor $own" step go build -tags "$tags" -o "decompress$tags" .
        for cpu in "" --cpu; do
            "./decompress$tags" $cpu "$root/tests/data/golden/block/model" "$root/tests/data/golden/block/original.safetensors" >out
            grep -q '^21 of 21 tensors equal the original, bit for bit$' out || { cat out; exit 1; }
        done
    done
)
echo "the program with this module in its vendor folder: 4 passed, 0 failed"
