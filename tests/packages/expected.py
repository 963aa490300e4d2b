#!/usr/bin/env python3
"""Prints what the programs must print, computed from the original only: name, size and FNV-1a of every tensor, sorted."""

import json
import sys


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


with open(sys.argv[1], "rb") as file:
    header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    start = file.tell()
    for name in sorted(header.keys() - {"__metadata__"}):
        begin, end = header[name]["data_offsets"]
        file.seek(start + begin)
        print(f"{name} {end - begin} {fnv1a(file.read(end - begin)):016x}")
