#!/usr/bin/env bash
# Runs all tests, as CI does: formatting, lints, documentation, every test of the library, the tool and the C interface, the
# benchmarks' answers, programs against installed trees and packages, the kernels built anew, the fuzzers, and many tests again
# with AddressSanitizer inside the library. Installs missing Debian packages where it can. tests/README.md says what is where.
set -euo pipefail
cd "$(dirname "$0")/.."
# Incremental builds make the next build faster and this one slower; in CI there is no next one.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

need() { # COMMAND PACKAGE: installs the Debian package of a command that is missing
    command -v "$1" >/dev/null && return
    fetch "$1" "$2"
    command -v "$1" >/dev/null || { echo "missing: $1 (Debian package $2)" >&2; exit 1; }
}
fetch() { # WHAT PACKAGE: installs a Debian package, if there is apt
    if command -v apt-get >/dev/null; then
        local as=()
        [ "$(id -u)" = 0 ] || as=(sudo)
        echo "== installing the package $2 for $1"
        "${as[@]}" apt-get install -y -qq "$2" >/dev/null 2>&1 ||
            { "${as[@]}" apt-get update -qq && "${as[@]}" apt-get install -y -qq "$2" >/dev/null; }
    fi
}
step() { # COMMAND...: runs it, and says how long it took
    local began=$SECONDS
    echo "== $*"
    "$@"
    echo "-- $((SECONDS - began)) s"
}

need "${CC:-cc}" gcc
need "${CXX:-c++}" g++
need valgrind valgrind
need nm binutils
need abidiff abigail-tools
need mpirun openmpi-bin
need python3 python3
need pkg-config pkgconf
need cmake cmake
! command -v apt-get >/dev/null || need dpkg-shlibdeps dpkg-dev
[ "$(id -u)" = 0 ] || need fakeroot fakeroot
python3 -c 'import ensurepip, venv' 2>/dev/null || fetch "Python's venv" python3-venv
gobin=$(bindings/go/toolchain.sh) # the machine's Go, or one that it installs into target/
PATH=$gobin:$PATH
for component in rustfmt clippy; do
    cargo "${component/rust/}" --version >/dev/null 2>&1 || rustup component add "$component"
done

step tests/supply/run.sh quick
step cargo fmt --all --check
# The same features in all steps: with others, cargo would build the library and its packages once more.
features=(--features libdf11/cli,libdf11/cudarc)
step cargo clippy --locked --workspace --all-targets "${features[@]}" -- -D warnings
# The library without default features, and with each feature alone.
each_feature() {
    local feature
    step cargo clippy --locked --no-default-features -- -D warnings
    for feature in $(cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
print(*next(p["features"] for p in json.load(sys.stdin)["packages"] if p["name"] == "libdf11"))'); do
        step cargo clippy --locked --no-default-features --features "$feature" -- -D warnings
    done
}
each_feature
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps -p libdf11 "${features[@]}"
# The public interface is what is listed, item by item.
step tests/supply/items.py target/doc/df11
# The pinned compiler of the kernels exists for Linux on x86-64; elsewhere only the hashes are compared, by `cargo test`. With it
# comes the disassembler by which `cargo test` runs the cubins.
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    step python3 kernels/build.py --check
    step python3 examples/engine/build.py --check
fi
step cargo test --locked -p libdf11 -p df11-emulator "${features[@]}"
# Checks the answers and does not measure; built as the tests are.
step cargo bench --locked --profile test -p libdf11 -p df11-bench "${features[@]}" \
    --bench decode --bench encode --bench image --bench matrix --bench range --bench model -- --quick

# Everything that is built against an installed tree.
DF11_PREFIX=${DF11_PREFIX:-$PWD/target/stage}
export DF11_PREFIX
step make install PREFIX="$DF11_PREFIX"
step bindings/go/test.sh
step bindings/python/test.sh
# Python's packages read what the tool writes. tests/deep.sh has the converter of llama.cpp, which needs PyTorch.
step tests/python/run.sh safetensors judge
# Programs in C, C++, Go and Rust, against the installed tree, the release and the packages.
step tests/packages/run.sh
step examples/go-service/test.sh

step make test-ggml

# Ten seconds for each fuzzer, two at a time.
step tests/fuzz/run.sh 10

# AArch64 under qemu-user; Windows is compiled only. tests/deep.sh has the rest of both.
step tests/portability/run.sh aarch64 windows

# What is unsafe in the library under AddressSanitizer. tests/deep.sh has the rest, ThreadSanitizer, Miri, every fault.
case $(rustc -vV | sed -n 's/^host: //p') in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu)
        # With the emulated driver that the tests above have built.
        DF11_TEST_EMULATOR=$(realpath "${CARGO_TARGET_DIR:-target}/debug/deps/libdf11_emulator.so")
        export DF11_TEST_EMULATOR
        step tests/sanitize.sh address codec decode capi
        ;;
esac
echo "== all passed"
