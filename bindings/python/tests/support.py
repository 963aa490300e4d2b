"""What the tests share: golden models, files read without the library, programs in processes of their own."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[3]
GOLDEN = ROOT / "tests/data/golden"
HOSTILE = ROOT / "tests/data/hostile"
EXTENSION = ROOT / "tests/data/extension"
MODELS = ("tiny", "block", "sharded", "edge", "edge_patched")
BLOCK = GOLDEN / "block/model"
UP = "model.layers.0.mlp.up_proj.weight"


class Stored:
    """A tensor in a safetensors file."""

    def __init__(self, dtype: str, shape: list[int], data: bytes) -> None:
        self.dtype = dtype
        self.shape = tuple(shape)
        self.data = data


def read(path: pathlib.Path) -> dict[str, Stored]:
    """Reads a safetensors file without the library."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8:begin])
    header.pop("__metadata__", None)
    return {
        name: Stored(t["dtype"], t["shape"], raw[begin + t["data_offsets"][0] : begin + t["data_offsets"][1]])
        for name, t in header.items()
    }


def write(path: pathlib.Path, tensors: dict[str, Stored]) -> None:
    """Writes a safetensors file without the library."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        end = at + len(tensor.data)
        header[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t.data for t in tensors.values()))


def large(path: pathlib.Path, times: int) -> pathlib.Path:
    """Writes a model with a layer of "block" as many times, under other names: 688,128 weights each."""
    layer = "model.layers.0."
    tensors = {n: t for n, t in read(BLOCK / "model.safetensors").items() if n.startswith(layer) and len(t.data)}
    many = {
        f"model.layers.{i}.{name.removeprefix(layer)}": tensor for i in range(times) for name, tensor in tensors.items()
    }
    file = path / "model.safetensors"
    write(file, many)
    return file


def original_of(name: str) -> pathlib.Path:
    return GOLDEN / name / "original.safetensors"


def python(
    program: str, *arguments: object, flags: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program with this interpreter; it must end within a minute."""
    return subprocess.run(
        [sys.executable, *flags, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )
