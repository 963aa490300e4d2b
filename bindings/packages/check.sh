#!/usr/bin/env bash
# Checks an installed tree before a program is linked with it: what each library exports and needs.
#
#     check.sh PREFIX [LIBDIR [GLIBC]]        GLIBC: the latest version that may be needed, such as 2.17
set -euo pipefail
prefix=$(realpath "$1") libdir=$(realpath "${2:-$1/lib}") glibc=${3:-}
here=$(realpath "$(dirname "$0")")
wanted=$("$here/functions.sh")
root=$(realpath "$here/../..")
failed=0
bad() { echo "check: $*" >&2; failed=1; }
same() { # WHAT NAMES: compares names with the header's functions
    [ "$2" = "$wanted" ] || bad "$1 is not what df11.h declares:
$(diff <(echo "$wanted") <(echo "$2"))"
}

shared=$libdir/libdf11.so
soname=$(readelf -dW "$shared" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[ "$(readelf -dW "$shared" | grep -c SONAME)" = 1 ] || bad "libdf11.so has not one soname"
[ "$soname" = "$(readlink "$shared")" ] || bad "libdf11.so is a link to $(readlink "$shared"), its soname $soname"
[ -f "$libdir/$soname" ] || bad "$soname is missing"
! readelf -dW "$shared" "$prefix/bin/df11" | grep -E 'RPATH|RUNPATH|TEXTREL' || bad "something has an rpath or a text relocation"
same "what libdf11.so exports" "$(nm -D --defined-only "$shared" | awk '{print $3}' | LC_ALL=C sort -u)"
same "what libdf11.a defines globally" "$(nm -g --defined-only "$libdir/libdf11.a" | awk 'NF == 3 {print $3}' | LC_ALL=C sort -u)"

# Only the system's C library and the unwinder may be needed: no CUDA, no Rust.
others=$(readelf -dW "$shared" "$prefix/bin/df11" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
    grep -vE '^(lib(c|m|dl|pthread|rt|util)\.so\.[0-9]|libgcc_s\.so\.1|ld-linux.*)' || true)
[ -z "$others" ] || bad "other libraries are needed: $others"

versions=$(readelf -VW "$shared" "$prefix/bin/df11" | grep -oE 'GLIBC_[0-9.]+' | sort -Vu)
newest=$(tail -n 1 <<<"$versions" | sed 's/GLIBC_//')
if [ -n "$glibc" ]; then
    [ "$(printf '%s\n' "$glibc" "$newest" | sort -V | tail -n 1)" = "$glibc" ] || bad "glibc $newest is needed, which is later than $glibc"
    # This tree is for other machines: it must neither name nor depend on the folder in which it was built.
    for file in "$shared" "$libdir/libdf11.a" "$prefix/bin/df11"; do
        named=$(grep -aoE "($root|${CARGO_HOME:-$HOME/.cargo}|${RUSTUP_HOME:-$HOME/.rustup})[[:print:]]{0,80}" "$file" || true)
        [ -z "$named" ] || bad "$(basename "$file") names folders of this machine: ${named%%$'\n'*}"
    done
fi
[ "$failed" = 0 ] && echo "$prefix: $soname, $(wc -l <<<"$wanted") functions, glibc $newest or later"
