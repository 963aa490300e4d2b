#!/usr/bin/env bash
# Makes the Python package df11: a wheel with the shared library in it, for every Python from 3.9 on, on every x86-64 Linux with
# glibc 2.17 (2012) or later; and a source distribution, which has the Python files alone.
#
#     wheel.sh            writes target/wheel/df11-VERSION-py3-none-manylinux_2_17_x86_64.whl, df11-VERSION.tar.gz and SHA256SUMS
#
# The library is the one that `make dist` makes, without line tables. The bytes depend on what it depends on, and on requirements.txt.
# Set BUILD to a folder that has a libdf11.so to pack that one instead: then no Rust is built, and the wheel is for tests on this
# machine. OUT is another folder to write to.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=bindings/python work=$PWD/target/wheel
out=$(realpath -ms "${OUT:-$work}")
mkdir -p "$work" "$out"
if [ -n "${BUILD:-}" ]; then
    release=$BUILD triple=x86_64-unknown-linux-gnu
    export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
else
    . bindings/packages/release.sh
fi
environment=$work/python
if ! cmp -s "$python/requirements.txt" "$environment/installed"; then
    python3 -m venv --clear "$environment"
    "$environment/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes -r "$python/requirements.txt"
    cp "$python/requirements.txt" "$environment/installed"
fi

# A copy outside of the repository, so that nothing else is packed that lies there: a source distribution would have the .gitignore
# of a folder above it.
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
rm -rf "$out"/*.whl "$out"/*.tar.gz
tar -C "$python" --exclude='__pycache__' --exclude='*.so' -cf - pyproject.toml hatch_build.py README.md src | tar -C "$tree" -xf -
cp LICENSE-APACHE LICENSE-MIT "$tree/"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
sed -i "s/^version = .*/version = \"$version\"/" "$tree/pyproject.toml"
chmod -R u+rwX,go+rX,go-w "$tree"
pack() { (cd "$tree" && "$environment/bin/python3" -m hatchling build -d "$out" "$@"); }
pack -t sdist
strip --strip-unneeded -o "$tree/src/df11/libdf11.so" "$release/libdf11.so"
chmod 755 "$tree/src/df11/libdf11.so"
{
    bindings/packages/licences.sh "$triple"
    printf '\n%s\n' "The shared library also has LLVM's libunwind and compiler-rt in it" \
        "(Apache-2.0 WITH LLVM-exception, copyright the LLVM Project's contributors, https://llvm.org), from Zig."
} >"$tree/THIRD-PARTY.txt"
DF11_WHEEL_TAG=py3-none-manylinux_2_17_x86_64 pack -t wheel
wheel=$(echo "$out"/*.whl)
[ "$(stat -c %s "$wheel")" -le 5000000 ] || { echo "$wheel has more than 5 MB" >&2; exit 1; }
(cd "$out" && sha256sum ./*.whl ./*.tar.gz | tee SHA256SUMS)
