#!/usr/bin/env bash
# All tests, as CI runs them: formatting, lints, documentation, every test of the library, the tool and the C interface,
# the benchmarks' answers, installed trees and packages with programs built against them, the kernels built anew, and the
# decoder's and encoder's tests again with AddressSanitizer inside the library.
# Debian packages that are missing are installed where that is possible.
set -euo pipefail
cd "$(dirname "$0")/.."
# What makes the next build faster makes this one slower, and in CI there is none.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0

need() { # COMMAND PACKAGE: installs the Debian package that has a command
    command -v "$1" >/dev/null && return
    fetch "$1" "$2"
    command -v "$1" >/dev/null || { echo "missing: $1 (Debian package $2)" >&2; exit 1; }
}
fetch() { # WHAT PACKAGE: installs a Debian package, if that is possible
    if command -v apt-get >/dev/null; then
        local as=()
        [ "$(id -u)" = 0 ] || as=(sudo)
        echo "== installing $2, which has $1"
        "${as[@]}" apt-get install -y -qq "$2" >/dev/null 2>&1 ||
            { "${as[@]}" apt-get update -qq && "${as[@]}" apt-get install -y -qq "$2" >/dev/null; }
    fi
}
step() { echo "== $*"; "$@"; }

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
# One set of features for all that follows: with another, cargo would build the library and its packages once more.
features=(--features libdf11/cli,libdf11/cudarc)
step cargo clippy --locked --workspace --all-targets "${features[@]}" -- -D warnings
RUSTDOCFLAGS="-D warnings" step cargo doc --locked --no-deps -p libdf11 "${features[@]}"
step cargo test --locked -p libdf11 -p df11-emulator "${features[@]}"
# Answers only: a machine under test has no time to be measured on, nor to build anything for that.
step cargo bench --locked --profile test -p libdf11 -p df11-bench "${features[@]}" \
    --bench decode --bench encode --bench image --bench model -- --quick

# What is built on an installed tree.
DF11_PREFIX=${DF11_PREFIX:-$PWD/target/stage}
export DF11_PREFIX
step make install PREFIX="$DF11_PREFIX"
step bindings/go/test.sh
# Programs in C, C++, Go and Rust against what is installed, released and packaged.
step tests/packages/run.sh
step examples/go-service/test.sh

# The pinned compiler of the kernels is to be had for Linux on x86-64; elsewhere the hashes that cargo test compares must do.
if [ "$(uname -sm)" = "Linux x86_64" ]; then
    step python3 kernels/build.py --check
fi

step make test-ggml

# Half a minute for each fuzzer, two at a time.
step tests/fuzz/run.sh 30

# The library itself under AddressSanitizer. What takes longer is in tests/deep.sh: ThreadSanitizer, Miri, every fault, hours.
case $(rustc -vV | sed -n 's/^host: //p') in
    x86_64-unknown-linux-gnu | aarch64-unknown-linux-gnu)
        # With the emulated driver of the tests above.
        DF11_TEST_EMULATOR=$(realpath "${CARGO_TARGET_DIR:-target}/debug/deps/libdf11_emulator.so")
        export DF11_TEST_EMULATOR
        step tests/sanitize.sh address
        ;;
esac
echo "== all passed"
