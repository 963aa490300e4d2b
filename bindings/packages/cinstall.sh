#!/usr/bin/env bash
# Compares what cargo-c installs with what `make install` installs: links, soname, exported functions, header, and pkg-config's
# answers for the shared library. The first run takes some seven minutes, mostly to build cargo-c, so `make test` does not include
# it. Run it before a release, and after a change of [package.metadata.capi] or build.rs.
#
# cargo-c needs OpenSSL's headers and pkg-config (Debian: libssl-dev, pkg-config).
set -euo pipefail
cd "$(dirname "$0")/../.."
wanted=0.10.24+cargo-0.98.0
tools=$PWD/target/tools
export PATH=$tools/bin:$PATH
if [ "$(cargo-cinstall cinstall --version 2>/dev/null)" != "cargo-c $wanted" ]; then
    CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR=$tools/build \
        cargo install --locked --debug cargo-c --version "$wanted" --root "$tools"
    rm -rf "$tools/build"
fi
theirs=$PWD/target/cargo-c/stage ours=$PWD/target/cargo-c/ours
rm -rf "$theirs" "$ours"
cargo cinstall --locked --release --target-dir target/cargo-c --prefix=/usr --libdir=/usr/lib --destdir="$theirs"
make install PREFIX=/usr DESTDIR="$ours"

failed=0
compare() { # WHAT COMMAND...: compares what a command prints in each tree
    local what=$1 tree
    shift
    for tree in "$ours" "$theirs"; do
        (cd "$tree/usr" && "$@") >"$tree.said" && [ -s "$tree.said" ] || echo "no answer in $tree" >"$tree.said"
    done
    diff "$ours.said" "$theirs.said" >"$theirs.diff" && echo "ok      $what" && return
    echo "FAILED  $what (ours, theirs)"
    cat "$theirs.diff"
    failed=$((failed + 1))
}
soname() { readelf -dW lib/libdf11.so | grep -o 'soname.*'; }
exports() { nm -D --defined-only lib/libdf11.so | awk '{print $3}' | sort; }
names() { readlink -f lib/libdf11.so lib/libdf11.so.0.* | xargs -n 1 basename && ls lib/libdf11.*; }
answers() { # what pkg-config prints, as if the tree were in /usr
    local -x PKG_CONFIG_PATH=$PWD/lib/pkgconfig PKG_CONFIG_SYSTEM_INCLUDE_PATH=/none PKG_CONFIG_SYSTEM_LIBRARY_PATH=/none
    pkg-config --modversion df11
    pkg-config --define-prefix --cflags --libs df11 | sed "s|$PWD/lib/pkgconfig/../..|/usr|g; s|$PWD|/usr|g"
}
compare "names" names
compare "soname" soname
compare "exported functions" exports
compare "header" cat include/df11.h
compare "experimental header" cat include/df11_experimental.h
compare "C++ header" cat include/df11.hpp
compare "pkg-config's answers" answers
[ "$failed" = 0 ]
