#!/usr/bin/env bash
# Installs headers, shared and static library, pkg-config and CMake packages, licences, the tool with its manual pages and
# completions, and the sources of the plug-in for llama.cpp. The script copies what `make build` has built and builds nothing, so it needs no Rust: `make build && sudo
# bindings/packages/install.sh`.
#
# Environment variables, all optional, with their defaults:
#     PREFIX            /usr/local
#     LIBDIR            PREFIX/lib
#     DESTDIR           empty: the folder that is put before every path, for packages
#     BUILD             target/release: the folder of libdf11.so, libdf11.a and df11
#     STRIP             strip; "no" keeps line tables
#     PC_PREFIX         empty: a fixed prefix for the .pc files, as Debian and cross compilers need it. Without it they find
#                       their prefix from their own folder, so that the tree can be moved
#     TOOL              BUILD/df11: a df11 that runs on this machine, which writes its manual pages and completions
#     ZSH               PREFIX/share/zsh/site-functions: the folder of zsh's completions
#     CC, LD, OBJCOPY, AR
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=bindings/packages
prefix=$(realpath -ms "${PREFIX:-/usr/local}")
libdir=$(realpath -ms "${LIBDIR:-$prefix/lib}")
destdir=${DESTDIR:-} build=${BUILD:-target/release} strip=${STRIP:-strip}
case $prefix$libdir in
*[[:space:]\|\&\\]*) echo "install: PREFIX and LIBDIR may hold no space and none of | & \\" >&2 && exit 2 ;;
esac
for built in libdf11.so libdf11.a df11; do
    [ -e "$build/$built" ] || { echo "install: $build/$built is missing: make build" >&2; exit 2; }
done

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
abi=${version%%.*} # changes with the ABI; build.rs has the same rule
[ "$abi" != 0 ] || abi=${version%.*}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

put() { # MODE FILE FOLDER [NAME]
    install -D -m "$1" "$2" "$destdir$3/${4:-$(basename "$2")}"
}
slim() { # MODE FILE FOLDER [NAME]: as put, without line tables
    cp "$2" "$scratch/slim"
    [ "$strip" = no ] || "$strip" --strip-unneeded "$scratch/slim"
    put "$1" "$scratch/slim" "$3" "${4:-$(basename "$2")}"
}
fill() { # TEMPLATE FOLDER: installs a template with its @NAMES@ filled in
    local name pc_prefix
    name=$(basename "$1" .in)
    # shellcheck disable=SC2016 # pkg-config expands that
    pc_prefix=${PC_PREFIX:-'${pcfiledir}/'$(realpath -ms --relative-to="$2" "$prefix")}
    sed -e "s|@VERSION@|$version|g" -e "s|@ABI@|$abi|g" -e "s|@PC_PREFIX@|$pc_prefix|g" \
        -e "s|@PREFIX@|$(realpath -ms --relative-to="$2" "$prefix")|g" \
        -e "s|@LIBDIR@|$(realpath -ms --relative-to="$prefix" "$libdir")|g" "$1" >"$scratch/$name"
    put 644 "$scratch/$name" "$2"
}

put 644 include/df11.h "$prefix/include"
put 644 include/df11_experimental.h "$prefix/include"
put 644 bindings/cpp/df11.hpp "$prefix/include"

# One library, three names: libdf11.so for the linker, the soname for the loader, and the file itself with its full version.
slim 755 "$build/libdf11.so" "$libdir" "libdf11.so.$version"
ln -sf "libdf11.so.$version" "$destdir$libdir/libdf11.so.$abi"
ln -sf "libdf11.so.$abi" "$destdir$libdir/libdf11.so"

functions=$("$packages/functions.sh")
# shellcheck disable=SC2086 # a name a word
STRIP=$strip "$packages/localise.sh" "$build/libdf11.a" "$scratch/libdf11.a" $functions
put 644 "$scratch/libdf11.a" "$libdir"

for template in "$packages"/*.pc.in; do
    fill "$template" "$libdir/pkgconfig"
done
for template in "$packages"/*.cmake.in; do
    fill "$template" "$libdir/cmake/df11"
done

slim 755 "$build/df11" "$prefix/bin"
tool=$(realpath -s "${TOOL:-$build/df11}")
"$tool" man "$scratch/man"
for page in "$scratch/man"/*.1; do
    put 644 "$page" "$prefix/share/man/man1"
done
completions() { # SHELL FOLDER NAME
    "$tool" completions "$1" >"$scratch/completions"
    put 644 "$scratch/completions" "$2" "$3"
}
completions bash "$prefix/share/bash-completion/completions" df11
completions fish "$prefix/share/fish/vendor_completions.d" df11.fish
completions zsh "${ZSH:-$prefix/share/zsh/site-functions}" _df11
# As sources, because the plug-in must be built with those of the llama.cpp that loads it.
for file in examples/ggml/plugin/*; do
    put 644 "$file" "$prefix/share/df11/llama.cpp"
done
for text in LICENSE-APACHE LICENSE-MIT README.md CHANGELOG.md; do
    put 644 "$text" "$prefix/share/doc/libdf11"
done
