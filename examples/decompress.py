#!/usr/bin/env python3
"""Decodes a DF11 model on the CPU with all processors. Prints the speed, and compares each tensor with the original.

    decompress.py MODEL [ORIGINAL]

MODEL is a folder or a .safetensors file. ORIGINAL contains the tensors before compression. decompress.c, decompress.cc,
decompress.go and decompress.rs are the same program in other languages, most of which also decode on a CUDA device.

    make wheel && pip install target/wheel/*.whl
"""

from __future__ import annotations

import os
import sys
import time

import df11

THREADS = len(os.sched_getaffinity(0))


def measure(model: df11.Model) -> None:
    """Decodes all groups repeatedly for a quarter of a second, and prints the speed."""
    groups = model.groups()
    weights = sum(group.element_count for group in groups)
    packed = sum(group.info.packed_bytes for group in groups)
    if weights == 0:
        print("no compressed groups")
        return
    print(
        f"{len(groups)} groups, {weights} weights, {packed} bytes instead of {2 * weights}: "
        f"{8 * packed / weights:.3f} bits per weight"
    )
    # One buffer serves all groups, as in an engine that decodes each layer just before it uses it.
    buffer = bytearray(max(group.nbytes for group in groups))
    start, rounds = time.perf_counter(), 0
    while rounds == 0 or time.perf_counter() - start < 0.25:
        for group in groups:
            group.read_into(buffer, threads=THREADS)
        rounds += 1
    speed = 2 * weights * rounds / (time.perf_counter() - start) * 1e-9
    print(f"decoded {rounds} times on the CPU with up to {THREADS} thread(s): {speed:.2f} GB/s of bf16")


def compare(model: df11.Model, original: df11.Model) -> bool:
    """Compares every tensor of the model with the original's tensor of the same name."""
    same = 0
    for name, tensor in model.items():
        other = original.get(name)
        if other is None:
            print(f"decompress: the original has no tensor named '{name}'", file=sys.stderr)
            continue
        got, want = bytearray(tensor.nbytes), bytearray(other.nbytes)
        tensor.read_into(got)
        other.read_into(want)
        if got == want:
            same += 1
        else:
            print(f"decompress: '{name}' differs from the original", file=sys.stderr)
    print(f"{same} of {len(model)} tensors equal the original, bit for bit")
    return same == len(model)


def main() -> int:
    """Runs the program and returns its exit status."""
    if len(sys.argv) not in (2, 3):
        print("usage: decompress.py MODEL [ORIGINAL]", file=sys.stderr)
        return 2
    try:
        with df11.open(sys.argv[1]) as model:
            print(f"libdf11 {df11.__version__}, {sys.argv[1]}")
            measure(model)
            if len(sys.argv) == 2:
                return 0
            with df11.open(sys.argv[2]) as original:
                return 0 if compare(model, original) else 1
    except df11.Error as error:
        print(f"decompress: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
