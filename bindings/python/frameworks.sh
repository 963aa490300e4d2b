#!/usr/bin/env bash
# Tests the Python package with PyTorch, transformers and diffusers, on the CPU: an environment of 5 GB, which takes a minute to
# install, so that this is part of `make test-deep` and not of `make test`. vLLM is not installed: its plug-in is tested against
# its interfaces.
#
#     frameworks.sh [PYTEST OPTIONS]
#
# What torch would do on a CUDA device is done on the emulated driver, or on the one that DF11_LIBCUDA names, by plain addresses.
# It tests the Python files of this folder with the library of DF11_LIBRARY, or of the installed tree DF11_PREFIX or target/stage.
# FRAMEWORKS is where the environment is made, target/frameworks if it is not set. PYTHON is the interpreter: 3.11 or later.
set -euo pipefail
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
environment=${FRAMEWORKS:-$root/target/frameworks}
step() { echo "-- $*"; "$@"; }
if [ -z "${DF11_LIBRARY:-}" ]; then
    export DF11_LIBRARY=${DF11_PREFIX:-$root/target/stage}/lib/libdf11.so
    [ -e "$DF11_LIBRARY" ] || step make -C "$root" --no-print-directory install PREFIX="${DF11_PREFIX:-$root/target/stage}"
fi
if [ -z "${DF11_LIBCUDA:-}" ]; then
    step cargo build --quiet --locked --manifest-path "$root/Cargo.toml" -p df11-emulator
    export DF11_LIBCUDA=${CARGO_TARGET_DIR:-$root/target}/debug/libdf11_emulator.so
fi
if ! cmp -s frameworks/requirements.txt "$environment/installed"; then
    step "${PYTHON:-python3}" -m venv --clear "$environment"
    step "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile \
        --only-binary=:all: -r frameworks/requirements.txt
    cp frameworks/requirements.txt "$environment/installed"
fi
export PYTHONPATH=$PWD/src:$PWD/tests PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1
step "$environment/bin/mypy" --config-file frameworks/mypy.ini --cache-dir "$environment/mypy" \
    src/df11/{_groups,torch,transformers,diffusers,vllm}.py
step "$environment/bin/python" -m pytest -q -p no:cacheprovider -c frameworks/pytest.ini --rootdir frameworks frameworks "$@"
