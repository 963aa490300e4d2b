#!/usr/bin/env bash
# Runs the tests that take too long for `make test`. tests/README.md says what each part shows and how long it takes.
#
#     tests/deep.sh                all of it
#     tests/deep.sh thread miri    some of it
set -euo pipefail
cd "$(dirname "$0")/.."
step() { echo "== $*"; "$@"; }
some() { # COMMAND...: runs tests, of which there must be some
    local log
    log=$(mktemp)
    step "$@" | tee "$log"
    ! grep -q '^running 0 tests' "$log" || { echo "no test has that name: $*" >&2; exit 1; }
    rm "$log"
}

# Sixteen threads at once under ThreadSanitizer.
thread() { step tests/sanitize.sh thread; }

# All that runs under AddressSanitizer; `make test` has the programs with most of the unsafe code.
address() { step tests/sanitize.sh address; }

# Only nightly toolchains have Miri.
miri() {
    rustup component add --toolchain nightly miri rust-src >/dev/null 2>&1 || cargo +nightly miri --version >/dev/null 2>&1 ||
        { echo "missing: Miri (rustup component add --toolchain nightly miri rust-src)" >&2; exit 1; }
    export CARGO_TARGET_DIR=target/miri MIRIFLAGS="-Zmiri-disable-isolation"
    step cargo +nightly miri test --locked --test miri
    step cargo +nightly miri test --locked --lib -- error format huffman progress --skip marks
}

# Each call of the tool on a file fails once; `make test` takes a sample.
faults() { DF11_ROUNDS=${DF11_ROUNDS:-1000} some cargo test --locked --features cli --test cli -- faults; }

# Walks every code of the large group, too.
scale() { DF11_DEEP=1 some cargo test --locked --test format scale; }

# Ten minutes of traffic.
soak() {
    DF11_SOAK_SECONDS=${DF11_SOAK_SECONDS:-600} some cargo test --locked --test traffic soak -- --nocapture
}

# Lowest versions, the packed crate, releases from two folders, advisories. It counts what cannot run on this machine.
supply() { step tests/supply/run.sh deep; }

# The converter of llama.cpp makes the same of a decompressed model as of its original.
llama() {
    [ -n "${DF11_PREFIX:-}" ] || { export DF11_PREFIX=$PWD/target/stage; step make install PREFIX="$DF11_PREFIX"; }
    step tests/python/run.sh llama
}

# PyTorch, transformers and diffusers on DF11 models.
frameworks() { step bindings/python/frameworks.sh; }

# The plug-in in a ggml that is built with the AVX-512 kernels, as far as this processor has them.
ggml() {
    [ -n "${DF11_PREFIX:-}" ] || { export DF11_PREFIX=$PWD/target/stage; step make install PREFIX="$DF11_PREFIX"; }
    local kernels flag
    for kernels in avx512:avx512vl avx512_bf16:avx512_bf16; do
        flag=${kernels#*:} kernels=${kernels%:*}
        grep -qw "$flag" /proc/cpuinfo || { echo "missing: a processor with $flag"; continue; }
        DF11_GGML_KERNELS=$kernels step examples/ggml/test.sh
    done
}

# Everything that is tested on the emulated driver, but how it is found, loads kernels and divides a device, on the machine code of
# each cubin.
machine() {
    step python3 kernels/build.py --check
    local capability
    DF11_EMULATOR_NVDISASM=$(echo "$PWD"/target/kernels-python/lib/python3*/site-packages/nvidia/cu13/bin/nvdisasm)
    # What drivers of CUDA 12.8 brought are cubins for 10.0 and later.
    export DF11_EMULATOR_NVDISASM DF11_EMULATOR_DRIVER=12080
    for capability in 75 80 90 100 120; do
        echo "== the cubin for $capability"
        DF11_EMULATOR_CC=$capability some cargo test --locked --test cuda -- \
            --skip contexts:: --skip driver:: --skip kernels_are_chosen --skip loading_survives \
            --skip machine_code --skip simt
    done
}

# AArch64 under qemu-user, all that runs there; macOS; targets that must be refused.
portability() { step tests/portability/run.sh aarch64-all musl others; }

[ $# -gt 0 ] || set -- thread address miri faults scale machine soak supply llama frameworks ggml portability
for part in "$@"; do
    case "$part" in
        thread | address | miri | faults | scale | machine | soak | supply | llama | frameworks | ggml | portability) (set -e; "$part") ;;
        *)
            echo "usage: tests/deep.sh [thread] [address] [miri] [faults] [scale] [machine] [soak] [supply]" \
                "[llama] [frameworks] [ggml] [portability]" >&2
            exit 2
            ;;
    esac
done
echo "== all passed"
