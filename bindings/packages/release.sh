# shellcheck shell=bash disable=SC2034
# Sourced in the root of the repository by dist.sh and bindings/python/wheel.sh: builds library and tool for every x86-64 Linux with
# glibc 2.17 (2012) or later, in the folder `release`, and sets `glibc`, `triple`, `requirements` and SOURCE_DATE_EPOCH.
#
# What is built depends on the sources, Cargo.lock, the Rust toolchain and requirements.txt, and not on the folder, the machine or
# the time. The linker comes from a virtual environment under target/.
glibc=2.17 triple=x86_64-unknown-linux-gnu
release=target/dist/$triple/release
requirements=bindings/packages/requirements.txt
environment=target/dist/python
[ "$(uname -sm)" = "Linux x86_64" ] || { echo "builds of releases are made on Linux on x86-64 only" >&2; exit 2; }

mkdir -p target/dist
if ! cmp -s "$requirements" "$environment/installed"; then
    python3 -m venv --clear "$environment"
    "$environment/bin/python3" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes -r "$requirements"
    cp "$requirements" "$environment/installed"
fi
rustup target list --installed 2>/dev/null | grep -qx "$triple" || rustup target add "$triple" 2>/dev/null || true

# Panic messages and line tables name source files, which must have the same names on every machine. Those of the standard library
# have fixed names, unless the toolchain has their source (the component rust-src): then they are folders of this machine.
registry=${CARGO_HOME:-$HOME/.cargo}/registry/src
std=$(rustc --print sysroot)/lib/rustlib/src/rust
flags=("--remap-path-prefix=$PWD=/libdf11" "--remap-path-prefix=$registry=/registry"
    "--remap-path-prefix=$std=/rustc/$(rustc -vV | sed -n 's/^commit-hash: //p')")
printf -v encoded '%s\x1f' "${flags[@]}"
PATH=$PWD/$environment/bin:$PATH CARGO_ENCODED_RUSTFLAGS=${encoded%$'\x1f'} \
    cargo zigbuild --release --locked --features cli --target "$triple.$glibc" --target-dir target/dist

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
