#!/usr/bin/env python3
"""Lets mlx-dfloat, a reader of DF11 by others, judge what libdf11 writes, and takes real DF11 from that package.

    judge.py model MODEL ORIGINAL     every group of a model decodes to the original's bits, by its reference decoder
    judge.py slice FOLDER             writes the groups of the package, FOLDER/NAME/model.safetensors, and their bits,
                                      FOLDER/NAME.bf16: four blocks of DFloat11/Qwen3-4B-DF11, and codes of 32 bits
"""

from __future__ import annotations

import json
import pathlib
import sys
import types
from typing import Any

# The package imports Apple's mlx, which its reference decoder, numpy alone, does not use.
sys.modules["mlx"] = types.ModuleType("mlx")
sys.modules["mlx.core"] = types.ModuleType("mlx.core")
sys.modules["mlx"].core = sys.modules["mlx.core"]  # type: ignore[attr-defined]
sys.modules["mlx.core"].array = object  # type: ignore[attr-defined]

import mlx_dfloat  # noqa: E402
import numpy as np  # noqa: E402
from mlx_dfloat import format as df11  # noqa: E402
from mlx_dfloat import reference  # noqa: E402

KINDS = {"uint8": "U8", "int64": "I64"}


def tensors_of(path: pathlib.Path) -> dict[str, bytes]:
    """Reads a safetensors file."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8:begin])
    header.pop("__metadata__", None)
    return {name: raw[slice(*(begin + at for at in t["data_offsets"]))] for name, t in header.items()}


def model(path: pathlib.Path, original: pathlib.Path) -> int:
    """Compares every tensor of a model with the original's; returns the exit status."""
    checkpoint, want = df11.open_checkpoint(path), tensors_of(original)
    groups = [reference.decode_matrices(group) for group in checkpoint.groups.values()]
    got = {name: values.tobytes() for group in groups for name, values in group.items()}
    if not groups or not got:
        print("there is no group")
        return 1
    wrong = [name for name, values in got.items() if want.get(name) != values]
    wrong += [name for name in want if name not in got and name not in checkpoint.extras]
    print(f"{len(groups)} groups, {len(got)} tensors, {sum(map(len, got.values())) // 2} weights; wrong: {wrong}")
    return 1 if wrong else 0


def write(path: pathlib.Path, members: dict[str, np.ndarray]) -> None:
    """Writes a group as a model of one file."""
    header, at = {}, 0
    for name, member in members.items():
        kind, end = KINDS[member.dtype.name], at + member.nbytes
        header[f"group.{name}"] = {"dtype": kind, "shape": list(member.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(m.tobytes() for m in members.values()))


def slices(folder: pathlib.Path) -> int:
    """Writes the groups that the package brings; returns the exit status."""
    for name in ("qwen3_4b_layer0_4blocks", "long_codes"):
        data = dict(np.load(pathlib.Path(mlx_dfloat.__file__).parent / f"_canary_data/{name}.npz"))
        expected = data.pop("expected_bf16")
        data["output_positions"] = data["output_positions"].astype("<u4").view(np.uint8)
        if name.startswith("qwen"):
            # Eight bytes follow the last whole block. Only the first one belongs to a code that begins before them.
            data["encoded_exponent"] = data["encoded_exponent"][:16385]
        (folder / name).mkdir()
        write(folder / name / "model.safetensors", data)
        (folder / f"{name}.bf16").write_bytes(expected.tobytes())
    return 0


def main() -> int:
    """Runs the program and returns its exit status."""
    match sys.argv[1:]:
        case ["model", path, original]:
            return model(pathlib.Path(path), pathlib.Path(original))
        case ["slice", folder]:
            return slices(pathlib.Path(folder))
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
