#!/usr/bin/env bash
# Tests the Python package through its wheel, in a fresh virtual environment: types, style, that the module is what the header makes
# it, every golden and hostile model, whole models, threads, forks, the end of the interpreter, and decoding on the emulated CUDA
# driver, or on the driver that DF11_LIBCUDA names.
#
#     test.sh [PYTEST OPTIONS]
#
# The wheel is DF11_WHEEL, or one with the library of the installed tree: DF11_PREFIX, or target/stage, which is made if it is
# missing. tests/packages/run.sh tests the wheel of a release. PYTHON is the interpreter, python3 if it is not set.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
prefix=${DF11_PREFIX:-$root/target/stage}
work=$root/target/wheel
python=${PYTHON:-python3}
step() { echo "-- $*"; "$@"; }
unset DF11_LIBRARY PYTHONPATH
mkdir -p "$work"

if [ -z "${DF11_WHEEL:-}" ]; then
    if ! [ -e "$prefix/lib/libdf11.so" ]; then
        step make -C "$root" --no-print-directory install PREFIX="$prefix"
    fi
    BUILD=$prefix/lib OUT=$work/tested step ./wheel.sh
    DF11_WHEEL=$(echo "$work"/tested/*.whl)
fi
if [ -z "${DF11_LIBCUDA:-}" ]; then
    step cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p df11-emulator
    export DF11_LIBCUDA=${CARGO_TARGET_DIR:-$root/target}/debug/libdf11_emulator.so
fi

# What the tests need stays; what is tested is installed into an environment of its own each time.
tools=$work/tools
if ! cmp -s tests/requirements.txt "$tools/installed"; then
    "$python" -m venv --clear "$tools"
    "$tools/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes -r tests/requirements.txt
    cp tests/requirements.txt "$tools/installed"
fi
step "$python" generate.py --check
step "$tools/bin/ruff" check --quiet --no-cache .
step "$tools/bin/ruff" format --quiet --no-cache --check .
step "$tools/bin/mypy" --cache-dir "$work/mypy"

fresh=$work/fresh
"$python" -m venv --clear --without-pip "$fresh"
step "$tools/bin/python" -m pip --quiet --disable-pip-version-check --python "$fresh/bin/python" install --no-index --no-deps \
    "$DF11_WHEEL"
export PYTHONDONTWRITEBYTECODE=1
step "$fresh/bin/python" -I tests/bare.py "$root/tests/data/golden"
# The types are there for whoever installs the wheel.
site=$("$fresh/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[ -e "$site/df11/py.typed" ]
# The same wheel in every other Python that this machine has.
for version in 3.9 3.10 3.11 3.12 3.13 3.13t 3.14 3.14t; do
    "python$version" -c '' 2>/dev/null || continue
    step "python$version" -I -S -W error tests/bare.py "$root/tests/data/golden" "$site"
done
"$tools/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' >"$site/tools.pth"
step "$fresh/bin/python" -m pytest -p no:cacheprovider "$@"
