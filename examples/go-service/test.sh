#!/usr/bin/env bash
# Tests the service against an installed tree: DF11_PREFIX, or target/stage. Nothing but loopback addresses is used.
set -euo pipefail
cd "$(dirname "$0")/.."

prefix=${DF11_PREFIX:-../target/stage}
DF11_PREFIX=$(realpath "$prefix") || { echo "$prefix: no installed tree; make install PREFIX=... lays one" >&2; exit 2; }
export DF11_PREFIX GOTOOLCHAIN=local GOPROXY=off
export PKG_CONFIG_PATH="$DF11_PREFIX/lib/pkgconfig${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}"
export LD_LIBRARY_PATH="$DF11_PREFIX/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

test -z "$(gofmt -l go-service)" || { echo "gofmt -l go-service:"; gofmt -l go-service; exit 1; }
go vet ./go-service/...
# With the static library nothing of the installed tree is needed to run it.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
go build -tags df11_static -o "$scratch/go-service" ./go-service
env -u LD_LIBRARY_PATH "$scratch/go-service" -help 2>"$scratch/help"
grep -q DF11_SERVICE_MODEL "$scratch/help"

go test -count=1 ./go-service/...
# What the race detector sees, and what holds when the collector runs all the time and cgo looks at every pointer.
go test -count=1 -short -race ./go-service/...
GOGC=1 GODEBUG=cgocheck=1 go test -count=1 -short ./go-service/...
