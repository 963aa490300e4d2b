#!/usr/bin/env bash
# Prints the flags with which tests build Go programs against an installed tree: flags.sh PREFIX [LIBDIR].
#
# Go's build cache looks at Go files and flags, but not at what pkg-config says and at headers elsewhere: it would go on with
# what was built against another tree. A flag of the one package with cgo's calls changes with the tree; -D does nothing
# else here.
set -euo pipefail
prefix=$1 lib=${2:-$1/lib}
tree=$(cat <(echo "$prefix") "$prefix"/include/df11.h "$lib"/pkgconfig/df11*.pc | sha256sum | cut -c1-16)
echo "-buildvcs=false -gcflags=github.com/libdf11/libdf11/bindings/go/internal/cdf11=-D=/$tree"
