#!/usr/bin/env bash
# Packs what a machine with a GPU needs to run the GPU's tests and benchmark without Rust, and without this repository:
# the library, the three programs, the golden models, and run.py. Other builds of the library, given by names, are put beside it
# as lib/NAME, and run.py measures them in turn.
#
#     tests/gpu/bundle.sh LIBRARY ARCHIVE.tar.gz [NAME=LIBRARY...]
set -euo pipefail
library=$(realpath "$1")
archive=$(realpath "$2")
shift 2
others=()
for other; do
    [[ $other =~ ^[A-Za-z0-9._+-]+=. ]] || { echo "$other: NAME=LIBRARY is wanted" >&2; exit 2; }
    others+=("${other%%=*}=$(realpath "${other#*=}")")
done
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
bundle=$folder/df11-gpu
mkdir -p "$bundle"/{bin,lib,data}
put() { # LIBRARY FOLDER: copies it under the names that the linker and the loader look for
    local soname
    soname=$(readelf -d "$1" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
    mkdir -p "$2"
    cp "$1" "$2/libdf11.so"
    strip --strip-debug "$2/libdf11.so"
    [ -z "$soname" ] || [ "$soname" = libdf11.so ] || ln -s libdf11.so "$2/$soname"
}
put "$library" "$bundle/lib"
for other in "${others[@]}"; do
    put "${other#*=}" "$bundle/lib/${other%%=*}"
done
for program in check bench; do
    # shellcheck disable=SC2016 # the loader expands $ORIGIN
    ${CC:-cc} -std=c11 -O2 -Wall -Wextra -Iinclude -Iexamples -Itests/gpu "tests/gpu/$program.c" -o "$bundle/bin/$program" \
        -L"$bundle/lib" -ldf11 -Wl,--enable-new-dtags,-rpath,'$ORIGIN/../lib' -ldl -lm -pthread
done
# shellcheck disable=SC2016 # as above
${CXX:-c++} -std=c++17 -O2 -Wall -Wextra -Iinclude -Ibindings/cpp -Iexamples examples/offload.cc -o "$bundle/bin/offload" \
    -static-libstdc++ -static-libgcc -L"$bundle/lib" -ldf11 -Wl,--enable-new-dtags,-rpath,'$ORIGIN/../lib' -ldl -lpthread
for golden in tests/data/golden/*/; do
    [ ! -d "$golden/model" ] || { mkdir "$bundle/data/$(basename "$golden")"; cp -r "$golden/model" "$bundle/data/$(basename "$golden")/"; }
done
cp tests/gpu/{run,torch_check,torch_products,peers}.py tests/gpu/ceiling.ptx tests/gpu/README.md "$bundle/"
tar -C "$folder" -czf "$archive" df11-gpu
bytes=$(stat -c %s "$archive")
needs=$(readelf -W --version-info "$bundle"/lib/libdf11.so "$bundle"/bin/* | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
echo "$archive: $bytes bytes; runs with glibc ${needs#GLIBC_} or later"
[ "$bytes" -lt 60000000 ] || { echo "the bundle is larger than 60 MB" >&2; exit 1; }
