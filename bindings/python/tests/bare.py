"""Reads the golden models by this package and Python alone, without numpy: bare.py GOLDEN [THE PACKAGE'S FOLDER]."""

import importlib.util
import json
import pathlib
import sys

if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[2])
import df11

assert importlib.util.find_spec("numpy") is None, "this is to run without numpy"
count = 0
for name in ("tiny", "block", "sharded", "edge", "edge_patched"):
    raw = pathlib.Path(sys.argv[1], name, "original.safetensors").read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    with df11.open(pathlib.Path(sys.argv[1], name, "model")) as model:
        for key, stored in json.loads(raw[8:begin]).items():
            if key != "__metadata__":
                first, end = (begin + offset for offset in stored["data_offsets"])
                values = model.get_tensor(key)
                assert isinstance(values, bytearray)
                assert values == raw[first:end], key
                rows = model.get_slice(key)
                if rows.get_shape() and rows.get_shape()[0] > 1:
                    row = (end - first) // rows.get_shape()[0]
                    assert rows[1:2] == rows[1] == raw[first + row : first + 2 * row], key
                count += 1
        if name == "block":
            matrix = df11.Matrix.of_tensor(model["lm_head.weight"], column_count=256)
            sums = bytearray(4 * matrix.row_count)
            matrix.multiply_into(bytes(4 * 256), sums)
            assert sums == bytes(len(sums))
            try:
                matrix.multiply([])
            except ImportError:
                pass
            else:
                raise AssertionError
print(f"{count} tensors without numpy")
