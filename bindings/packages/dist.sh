#!/usr/bin/env bash
# Makes the archive of a release: an installed tree for every x86-64 Linux with glibc 2.17 (2012) or later.
#
#     dist.sh             writes target/dist/libdf11-VERSION-x86_64-linux-gnu.tar.gz, SHA256SUMS, and a CycloneDX bill of
#                         materials (the same name with .cdx.json), which lists what is linked in
#
# The archive's bytes depend on the sources, Cargo.lock, the Rust toolchain and requirements.txt, and not on the folder, the machine
# or the time. Dates inside are the last commit's, or SOURCE_DATE_EPOCH. The linker comes from a virtual environment under target/.
set -euo pipefail
cd "$(dirname "$0")/../.."

. bindings/packages/release.sh
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=libdf11-$version-x86_64-linux-gnu

tree=target/dist/tree
rm -rf "$tree"
BUILD=$release PREFIX=/$name DESTDIR=$tree bindings/packages/install.sh
{
    bindings/packages/licences.sh "$triple"
    printf '\n%s\n' "The shared library and the tool of this archive also have LLVM's libunwind and compiler-rt in them" \
        "(Apache-2.0 WITH LLVM-exception, copyright the LLVM Project's contributors, https://llvm.org), from Zig."
} >"$tree/$name/share/doc/libdf11/THIRD-PARTY.txt"
bindings/packages/check.sh "$tree/$name" "$tree/$name/lib" "$glibc"
tar -C "$tree" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner --mode='u+rwX,go+rX,go-w' \
    --mtime="@$SOURCE_DATE_EPOCH" -cf - "$name" | gzip -9n >"target/dist/$name.tar.gz"
zig=$(sed -n 's/^ziglang==\([^ ]*\).*/\1/p' "$requirements")
tests/supply/sbom.py --target "$triple" --out "target/dist/$name.cdx.json" \
    --also zig-libunwind "$zig" "Apache-2.0 WITH LLVM-exception" --also zig-compiler-rt "$zig" "Apache-2.0 WITH LLVM-exception"
(cd target/dist && sha256sum "$name.tar.gz" "$name.cdx.json" | tee SHA256SUMS)
