#!/usr/bin/env bash
# Prints the flags with which tests build Go programs against an installed tree: flags.sh PREFIX [LIBDIR].
#
# Go's build cache looks at Go files and flags, but not at the output of pkg-config and at headers in other folders: it
# would reuse packages that were built against another tree. So the package with the cgo calls gets a flag that changes
# with the tree. -D has no other effect here.
set -euo pipefail
prefix=$1 lib=${2:-$1/lib}
tree=$(cat <(echo "$prefix") "$prefix"/include/df11.h "$lib"/pkgconfig/df11*.pc | sha256sum | cut -c1-16)
echo "-buildvcs=false -gcflags=github.com/libdf11/libdf11/bindings/go/internal/cdf11=-D=/$tree"
