#!/usr/bin/env bash
# Lays the installed tree: header, shared and static library, pkg-config files, CMake package, licences, the tool. It copies
# and links what cargo has built, and builds nothing itself.
#
#     install.sh BUILD_FOLDER VERSION          with PREFIX, LIBDIR, DESTDIR in the environment
#
# Every path in the tree is relative to the file that says it, so the tree may be moved. CC, LD, OBJCOPY and STRIP name the
# tools, if they are not the usual ones; DF11_STRIP=no keeps the line tables of the libraries and the tool.
set -euo pipefail
cd "$(dirname "$0")/../.."

build=$1 version=$2
prefix=${PREFIX:-/usr/local} destdir=${DESTDIR:-}
libdir=${LIBDIR:-$prefix/lib}
case $prefix$libdir in *[[:space:]]*) echo "install: PREFIX and LIBDIR may hold no white space" >&2; exit 2 ;; esac
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
case $libdir in /*) ;; *) libdir=$PWD/$libdir ;; esac
ld=${LD:-ld} objcopy=${OBJCOPY:-objcopy} strip=${STRIP:-strip}
[ "${DF11_STRIP:-yes}" = no ] && strip=:

abi=${version%.*} # the number that changes when the ABI does: see build.rs
[ "${version%%.*}" = 0 ] || abi=${version%%.*}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

put() { # MODE FILE FOLDER [NAME]
    install -D -m "$1" "$2" "$destdir$3/${4:-$(basename "$2")}"
}
fill() { # TEMPLATE FOLDER [NAME]: a file with its @NAMES@ filled in
    local name=${3:-$(basename "$1" .in)}
    sed -e "s|@VERSION@|$version|g" -e "s|@ABI@|$abi|g" \
        -e "s|@LIBDIR_TO_PREFIX@|$(realpath -m --relative-to="$libdir" "$prefix")|g" \
        -e "s|@PREFIX_TO_LIBDIR@|$(realpath -m --relative-to="$prefix" "$libdir")|g" "$1" >"$scratch/$name"
    put 644 "$scratch/$name" "$2"
}

put 644 include/df11.h "$prefix/include"
[ ! -e bindings/cpp/df11.hpp ] || put 644 bindings/cpp/df11.hpp "$prefix/include"

# The shared library under three names: what is loaded is the soname, what is linked has no number.
put 755 "$build/libdf11.so" "$libdir" "libdf11.so.$version"
$strip --strip-unneeded "$destdir$libdir/libdf11.so.$version"
[ "$abi" = "$version" ] || ln -sf "libdf11.so.$version" "$destdir$libdir/libdf11.so.$abi"
ln -sf "libdf11.so.$abi" "$destdir$libdir/libdf11.so"

# The static library as one object in which only df11_* is to be seen. As cargo makes it, it holds Rust's standard library
# with every symbol global, and a program that links a second archive made by Rust has them all twice.
#  - what no df11_* function reaches is left out, section by section;
#  - section groups become plain sections: the linker keeps one of two groups of the same name, and the other archive's
#    unwind tables would point into what was thrown away;
#  - compressed bitcode, which is for the linker of rustc alone, goes.
roots=$(sed -n 's/.*\b\(df11_[a-z0-9_]*\)(.*/-u \1/p' include/df11.h | grep -v '^ \*' | sort -u)
$ld -r --gc-sections --force-group-allocation $roots -o "$scratch/all.o" "$build/libdf11.a"
$objcopy --wildcard --keep-global-symbol='df11_*' --remove-section=.llvmbc --remove-section=.llvmcmd \
    "$scratch/all.o" "$scratch/df11.o"
$strip --strip-debug "$scratch/df11.o"
rm -f "$scratch/libdf11.a"
ar rcsD "$scratch/libdf11.a" "$scratch/df11.o"
put 644 "$scratch/libdf11.a" "$libdir"

for template in bindings/packages/df11.pc.in bindings/packages/df11-static.pc.in; do
    fill "$template" "$libdir/pkgconfig"
done
for template in bindings/packages/df11-config.cmake.in bindings/packages/df11-config-version.cmake.in; do
    fill "$template" "$libdir/cmake/df11"
done

put 755 "$build/df11" "$prefix/bin"
$strip --strip-unneeded "$destdir$prefix/bin/df11"
for text in LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md; do
    put 644 "$text" "$prefix/share/doc/libdf11"
done
