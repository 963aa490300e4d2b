#!/usr/bin/env bash
# Runs tests with a sanitizer inside the library, which finds reads and writes out of bounds and races that a sanitizer in a C
# program around it cannot see. Every toolchain has the sanitizers, but their switch is not stable yet: hence RUSTC_BOOTSTRAP.
#
#     tests/sanitize.sh address [PROGRAM...]
#                                  what decodes and encodes, the kept inputs of the fuzzers, and uploads on the emulated driver:
#                                  of all test programs that have some of that, or of these
#     tests/sanitize.sh thread     sixteen threads at once (tests/traffic), with the standard library and the emulated
#                                  driver instrumented, too: nothing is suppressed. Needs the component rust-src.
set -euo pipefail
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
step() { echo "== $*"; "$@"; }

address() {
    # The emulated driver itself is not checked, so one that is built already serves.
    if [ -z "${DF11_TEST_EMULATOR:-}" ]; then
        step cargo build --locked --profile test -p df11-emulator
        DF11_TEST_EMULATOR=$(realpath "${CARGO_TARGET_DIR:-target}/debug/libdf11_emulator.so")
    fi
    export DF11_TEST_EMULATOR RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR="target/asan"
    local programs=("$@")
    [ $# -gt 0 ] || programs=(format codec decode writer cuda capi miri)
    step cargo test --locked --target "$host" "${programs[@]/#/--test=}" --no-run
    local log
    log=$(mktemp)
    tests() { # PROGRAM [MODULE::...]: runs the tests of these modules, each of which must have some, if the program was asked for
        local module
        [[ " ${programs[*]} " = *" $1 "* ]] || return 0
        step cargo test --locked --target "$host" --test "$1" -- "${@:2}" | tee "$log"
        for module in "${@:2}"; do
            grep -q "^test $module" "$log" || { echo "the program $1 has no tests in $module" >&2; exit 1; }
        done
    }
    tests format hostile:: properties:: kept::
    tests codec golden:: encode:: matrix::
    tests decode
    tests writer models::
    tests cuda image:: groups:: uploads::
    tests capi mistakes:: structs:: describe:: callbacks::
    tests miri
    # Memory that the driver may still read is kept for ever, on purpose, where the driver fails to say when a copy has ended.
    ASAN_OPTIONS=detect_leaks=0 tests cuda errors::
    rm "$log"
}

thread() {
    local source
    source=$(rustc --print sysroot)/lib/rustlib/src/rust/library
    [ -d "$source" ] || rustup component add rust-src >/dev/null 2>&1 || true
    [ -d "$source" ] || { echo "missing: the standard library's source (rustup component add rust-src)" >&2; exit 1; }
    # With -rdynamic the emulated driver, which is loaded, finds the sanitizer's functions in the program.
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=thread -Clink-arg=-rdynamic" CARGO_TARGET_DIR="target/tsan"
    local test=(cargo test --locked -Zbuild-std --target "$host" --test traffic)
    step "${test[@]}" sixteen
    # Shows that the checker can find a race.
    echo "== the same checker finds a race that is there"
    local said
    if said=$(RUSTFLAGS="$RUSTFLAGS --cfg df11_planted_race" "${test[@]}" a_race_that_a_checker_must_find 2>&1) || ! grep -q "data race" <<<"$said"; then
        echo "the race was not found: $said" >&2
        exit 1
    fi
}

case "${1:-}" in
    address) "$@" ;;
    thread) thread ;;
    *) echo "usage: tests/sanitize.sh address [PROGRAM...] | thread" >&2; exit 2 ;;
esac
