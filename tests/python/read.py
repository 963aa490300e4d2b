#!/usr/bin/env python3
"""Compares a folder of safetensors files with one file, by the package safetensors: read.py ORIGINAL FOLDER

Every tensor of the one must be in the other with its type, shape and bytes, and in the file that the index names.
"""
import json
import pathlib
import sys

import safetensors


def read(file: pathlib.Path) -> dict:
    """Returns the tensors of a file by their names: type, shape, bytes."""
    return {name: (t["dtype"], t["shape"], bytes(t["data"])) for name, t in safetensors.deserialize(file.read_bytes())}


def main() -> int:
    original, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    want, files = read(original), {file.name: read(file) for file in sorted(folder.glob("*.safetensors"))}
    index = folder / "model.safetensors.index.json"
    if index.exists():
        index = json.loads(index.read_text())
        places = index["weight_map"]
        total = sum(len(data) for tensors in files.values() for _, _, data in tensors.values())
        assert index["metadata"] == {"total_size": total}, f"the index says {index['metadata']}, and it is {total}"
        assert set(places.values()) == set(files), "the index names other files"
    else:
        (only,) = files
        places = dict.fromkeys(files[only], only)
    assert sum(map(len, files.values())) == len(places) == len(want), "other tensors"
    for name, tensor in want.items():
        there = files[places[name]].get(name)
        assert there is not None, f"{name} is not where the index says"
        assert there[:2] == tensor[:2], f"{name} is {there[:2]}, and was {tensor[:2]}"
        assert there[2] == tensor[2], f"{name} has other bytes"
    return 0


if __name__ == "__main__":
    sys.exit(main())
