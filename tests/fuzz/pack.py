#!/usr/bin/env python3
"""Puts many small inputs of a fuzzer into one file, and takes them out again.

    pack.py pack FOLDER FILE        pack.py unpack FILE FOLDER

The file holds each input behind its length, four bytes, little endian, the shortest first. Inputs in a folder are named by
their SHA-256, so that the same ones make the same file.
"""
import hashlib
import pathlib
import struct
import sys


def pack(folder, file):
    inputs = sorted({path.read_bytes() for path in folder.iterdir()}, key=lambda data: (len(data), data))
    file.write_bytes(b"".join(struct.pack("<I", len(data)) + data for data in inputs))
    print(f"{file}: {len(inputs)} inputs, {file.stat().st_size} bytes")


def unpack(file, folder):
    data, at = file.read_bytes(), 0
    folder.mkdir(parents=True, exist_ok=True)
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        one = data[at + 4 : at + 4 + length]
        if len(one) != length:
            sys.exit(f"{file}: cut short at byte {at}")
        (folder / hashlib.sha256(one).hexdigest()[:40]).write_bytes(one)
        at += 4 + length


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit(__doc__)
    {"pack": pack, "unpack": unpack}[sys.argv[1]](*map(pathlib.Path, sys.argv[2:]))
