#!/usr/bin/env bash
# Builds and tests libdf11 for platforms that this machine is not.
#
#     tests/portability/run.sh [aarch64 | aarch64-all | musl | windows | others]...     without arguments: aarch64 windows
#
#     aarch64        builds the library and the tool for AArch64, and runs under qemu-user: the codec's tests (golden
#                    models, every decoder and encoder against the naive ones), tests/c/api.c, and the tool
#     aarch64-all    also the unit tests and the tests of decoding, the format, hostile files and the writer
#     musl           builds the archive and the tool for x86-64 Linux with musl, and runs tests/c/api.c and the tool
#     windows        compiles the library and the tool for Windows, without linking; nothing is run
#     others         the same for macOS; big-endian and 32-bit targets must be refused
#
# In CI the script installs the Debian packages that are missing. Elsewhere it names them and skips the part, because
# some of them need the architecture arm64 in dpkg. If rustup's toolchain has a target (`rustup target add
# aarch64-unknown-linux-gnu`), it is used instead of Debian's.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# None of the caller's settings for its own platform may reach another one.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
# A folder of its own: the compiler may be another one than that of the other tests.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}/portability
# Nothing is built twice here, and nobody debugs what is built.
export CARGO_INCREMENTAL=0 CARGO_PROFILE_TEST_DEBUG=0 CARGO_PROFILE_DEV_DEBUG=0

skipped=0
. tests/count.sh
skip() { # WHAT, and why
    skipped=$((skipped + 1))
    echo "skipped $1"
}

# Sets `missing` to the packages whose command or file is not there. Each argument is "PACKAGE COMMAND" or
# "PACKAGE /FILE"; the file may be a pattern.
look() {
    local need
    missing=()
    for need in "$@"; do
        case $need in
        *' '/*) compgen -G "${need#* }" >/dev/null || missing+=("${need%% *}") ;;
        *) command -v "${need#* }" >/dev/null || missing+=("${need%% *}") ;;
        esac
    done
}

# Returns whether everything that a part needs is there, after installing it in CI.
have() { # PART NEED...
    local part=$1
    shift
    look "$@"
    [ ${#missing[@]} != 0 ] || return 0
    if [ -n "${CI:-}" ] && command -v apt-get >/dev/null; then
        t "$part: install ${missing[*]}" install_packages "${missing[@]}"
        look "$@"
        [ ${#missing[@]} != 0 ] || return 0
    fi
    if [ -n "${CI:-}" ]; then
        t "$part: ${missing[*]} must be there in CI" false
    else
        skip "$part: missing ${missing[*]} (Debian packages for x86-64; :arm64 needs dpkg --add-architecture arm64)"
    fi
    return 1
}
install_packages() {
    local as=() added=true
    [ "$(id -u)" = 0 ] || as=(sudo)
    case "$*" in *:arm64*) added="dpkg --add-architecture arm64" ;; esac
    # The compilers run here, whatever they compile for.
    [ "$(dpkg --print-architecture)" = amd64 ] && "${as[@]}" $added && "${as[@]}" apt-get update -qq &&
        "${as[@]}" apt-get install -y -qq --no-install-recommends "$@"
}

# Prints the compiler that has a standard library for a target, or nothing.
compiler_for() { # TARGET
    local rustc
    for rustc in rustc /usr/bin/rustc; do
        if compgen -G "$("$rustc" --print sysroot 2>/dev/null)/lib/rustlib/$1/lib/libstd-*.rlib" >/dev/null; then
            command -v "$rustc"
            return
        fi
    done
}

# AArch64 --------------------------------------------------------------------------------------------------------------

triple=aarch64-unknown-linux-gnu
built=$CARGO_TARGET_DIR/$triple/debug
runner=qemu-aarch64

# The programs are linked statically: under Debian 12's qemu 7.2 every dynamic program, even one of three lines in C,
# hangs in pthread_create.
aarch64_environment() {
    RUSTC=$(compiler_for "$triple")
    [ -n "$RUSTC" ] || RUSTC=/usr/bin/rustc
    export RUSTC
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static -D warnings"
    # The tests' packages are not optimised, and their frames are larger here: hostile patterns need more than the 2 MiB
    # that Rust's threads have.
    export RUST_MIN_STACK=8388608
    # For cargo, and for tests that start their own program again.
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64 DF11_TEST_RUNNER=qemu-aarch64
}
aarch64_needs() { # PART
    local needs=("gcc-aarch64-linux-gnu aarch64-linux-gnu-gcc"
        "libc6-dev-arm64-cross /usr/aarch64-linux-gnu/include/stdio.h" "qemu-user qemu-aarch64")
    [ -n "$(compiler_for "$triple")" ] ||
        needs+=("rustc-web /usr/bin/rustc" "libstd-rust-web-dev:arm64 /usr/lib/rustlib/$triple/lib/libstd-*.rlib")
    have "$1" "${needs[@]}"
}

cargo_test() { # ARGUMENTS
    cargo test --locked --features cli --target "$triple" "$@"
}
c_program() { # COMPILER ARCHIVE...: every function, as tests/bindings/c.rs has it
    "$1" -static -std=c11 -O1 -Wall -Wextra -Wpedantic -Werror -Iinclude tests/c/api.c \
        "${@:2}" -lpthread -ldl -lm -o "$scratch/api"
    rm -rf "$scratch/api.files"
    mkdir "$scratch/api.files"
    $runner "$scratch/api" tests/data/golden tests/data/hostile "$scratch/api.files" | tee "$scratch/said"
    grep -q 'checks passed' "$scratch/said"
}
tool() { # on a model that the reference compressor wrote
    local block=tests/data/golden/block df11="$runner $built/df11"
    rm -rf "$scratch"/{one,again,original}.safetensors "$scratch/damaged" "$scratch"/*.config.json
    $df11 compress "$block/original.safetensors" --pattern "$block/model/config.json" -o "$scratch/one.safetensors"
    cmp "$scratch/one.safetensors" "$block/model/model.safetensors"
    $df11 verify "$block/model" --against "$block/original.safetensors"
    $df11 decompress "$block/model" -o "$scratch/original.safetensors"
    $df11 compress "$scratch/original.safetensors" --pattern "$block/model/config.json" -o "$scratch/again.safetensors"
    cmp "$scratch/again.safetensors" "$block/model/model.safetensors"
    $df11 inspect "$block/model"
    # A model with a byte changed must not pass.
    cp -r "$block/model" "$scratch/damaged"
    printf '\xff' | dd of="$scratch/damaged/model.safetensors" bs=1 seek=20000 conv=notrunc status=none
    if $df11 verify "$scratch/damaged" --against "$block/original.safetensors"; then
        echo "a damaged model passes"
        return 1
    fi
}
aarch64() { # PART
    unset RUSTC
    aarch64_needs "$1" || return 0
    aarch64_environment
    t "$1: it is built" cargo_test --no-run --test codec
    t "$1: codec" cargo_test --test codec
    t "$1: C, static as a whole" c_program aarch64-linux-gnu-gcc "$built/deps/libdf11.a"
    t "$1: the tool" tool
}
aarch64_all() { # PART
    local program
    aarch64 "$1"
    [ -n "${RUSTC:-}" ] || return 0 # skipped, or failed
    for program in decode format plan writer; do
        t "$1: $program" cargo_test --test "$program"
    done
    # A static program cannot load a library, such as the emulated driver.
    t "$1: unit tests" cargo_test --lib --bins -- --skip cuda::driver::
}

# musl ---------------------------------------------------------------------------------------------------------------

# Static programs, as they run in images of Alpine. There is no shared library for this target, and no CUDA driver for musl.
musl() {
    local triple=x86_64-unknown-linux-musl built=$CARGO_TARGET_DIR/x86_64-unknown-linux-musl/debug runner='' unwinder
    [ "$(uname -m)" = x86_64 ] || { skip "musl: this machine is not x86-64" && return; }
    have musl "musl-tools musl-gcc" || return 0
    unset RUSTC
    rustup target add "$triple" >/dev/null 2>&1 || true
    [ -n "$(compiler_for "$triple")" ] || { skip "musl: missing rustup target add $triple" && return; }
    RUSTC=$(compiler_for "$triple")
    export RUSTC
    # That of Debian's GCC is for glibc.
    unwinder=$("$RUSTC" --print sysroot)/lib/rustlib/$triple/lib/self-contained/libunwind.a
    t "musl: it is built" cargo build --locked --features cli --target "$triple"
    t "musl: C, static as a whole" c_program musl-gcc "$built/libdf11.a" "$unwinder"
    t "musl: the tool" tool
    unset RUSTC
}

# What is compiled only ------------------------------------------------------------------------------------------------

# Compiles for a target without linking, so no C compiler, linker or library of that target is needed. The standard
# library comes with a toolchain or is compiled from Debian's package of its source. That option of cargo is unstable,
# which is why RUSTC_BOOTSTRAP is set.
check() { # TARGET
    local std=()
    RUSTC=$(compiler_for "$1")
    if [ -z "$RUSTC" ]; then
        RUSTC=/usr/bin/rustc std=(-Zbuild-std=std,panic_abort)
        export RUSTC_BOOTSTRAP=1
    fi
    export RUSTC
    cargo check --locked --lib --bins --features cli,cudarc --target "$1" "${std[@]}"
}
compiles() { # TARGET: without a warning about our own code
    check "$1" 2>&1 | tee "$scratch/compiling"
    ! grep '^warning' "$scratch/compiling"
}
refused() { # TARGET
    if check "$1" >"$scratch/compiling" 2>&1; then
        echo "$1 is not refused"
        return 1
    fi
    grep -F 'libdf11 supports 64-bit little-endian targets' "$scratch/compiling" || { cat "$scratch/compiling"; return 1; }
}
compile_needs() { # PART TARGET...
    local part=$1 target
    shift
    for target in "$@"; do
        [ -n "$(compiler_for "$target")" ] || {
            have "$part" "rustc-web /usr/bin/rustc" \
                "rust-web-src /usr/lib/rustlib/src/rust/library/std/Cargo.toml"
            return
        }
    done
}
windows() {
    compile_needs windows x86_64-pc-windows-msvc || return 0
    t "windows: it compiles" compiles x86_64-pc-windows-msvc
}
others() {
    local targets=(aarch64-apple-darwin s390x-unknown-linux-gnu i686-unknown-linux-gnu)
    compile_needs others "${targets[@]}" || return 0
    t "macOS: it compiles" compiles "${targets[0]}"
    t "big-endian is refused" refused "${targets[1]}"
    t "32-bit is refused" refused "${targets[2]}"
}

[ $# -gt 0 ] || set -- aarch64 windows
for part in "$@"; do
    case $part in
    aarch64 | aarch64-all)
        if [ "$(uname -m)" = aarch64 ]; then
            skip "$part: this machine is one, and every other test runs on it"
        elif [ "$part" = aarch64 ]; then
            aarch64 AArch64
        else
            aarch64_all AArch64
        fi
        ;;
    musl | windows | others) "$part" ;;
    *) echo "usage: tests/portability/run.sh [aarch64 | aarch64-all | musl | windows | others]..." >&2 && exit 2 ;;
    esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
