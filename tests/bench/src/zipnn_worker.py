"""Decompresses with ZipNN when told to. Started by zipnn.rs with a file of bf16 weights.

Says "ready VERSION BYTES" once, then for every line "N" decompresses N times, compares the answer and says
"time WALL CPU" in seconds for one. What it imports may print whatever it likes to standard error."""

import sys
import time
from importlib.metadata import version

import zipnn

with open(sys.argv[1], "rb") as file:
    original = file.read()
codec = zipnn.ZipNN(method="HUFFMAN", input_format="byte", bytearray_dtype="bfloat16", threads=1)
# Compression may reorder its input in place, so it gets a copy.
packed = bytes(codec.compress(bytearray(original)))
print("ready", version("zipnn"), len(packed), flush=True)
for line in sys.stdin:
    repeats = int(line)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        answer = codec.decompress(packed)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    if bytes(answer) != original:
        print("wrong answer", flush=True)
        sys.exit(1)
    del answer
    print("time", wall / repeats, cpu / repeats, flush=True)
