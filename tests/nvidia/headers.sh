#!/usr/bin/env bash
# Prints the folder with NVIDIA's CUDA headers. They are in the wheels that requirements.txt pins, which are installed into
# target/. Only the headers are used, so the wheels for x86-64 serve every machine.
set -euo pipefail
cd "$(dirname "$0")"
venv=$(cd ../.. && pwd)/target/nvidia-headers
headers=$venv/headers/nvidia/cu13/include
if ! [ -e "$headers/cuda.h" ] || ! cmp -s requirements.txt "$venv/installed"; then
    echo "-- installing NVIDIA's headers into target/nvidia-headers" >&2
    {
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
            --platform manylinux2014_x86_64 --target "$venv/headers" -r requirements.txt
    } >&2
    [ -e "$headers/cuda_runtime_api.h" ] || { echo "missing: cuda_runtime_api.h in the wheels" >&2; exit 1; }
    cp requirements.txt "$venv/installed"
fi
echo "$headers"
