"""Compresses or decompresses with a Python package when told to. Started by python.rs with the package's name, "compress"
or "decompress", and a file of bf16 weights.

Says "ready VERSION BYTES" once, then for every line "N" works N times, compares the answer and says "time WALL CPU" in
seconds for one. What it imports may print whatever it likes to standard error."""

import sys
import time
from importlib.metadata import version


class ZipNN:
    """Its Huffman method, which is its default for bf16, on one thread."""

    def __init__(self):
        import zipnn

        self.codec = zipnn.ZipNN(method="HUFFMAN", input_format="byte", bytearray_dtype="bfloat16", threads=1)

    # Compression reorders its input in place, so it gets a copy each time. Making that is not timed.
    prepare = staticmethod(bytearray)

    def compress(self, prepared):
        return self.codec.compress(prepared)

    def decompress(self, packed):
        return self.codec.decompress(packed)


class OpenZL:
    """Sign and mantissa as they are, exponents to its entropy coders, no checksums."""

    def __init__(self):
        import numpy
        import openzl.ext

        self.numpy, self.zl = numpy, openzl.ext
        zl = self.zl
        self.compressor = zl.Compressor()
        store, entropy = zl.graphs.Store(), zl.graphs.Entropy()
        graph = zl.nodes.BFloat16Deconstruct()(self.compressor, store(self.compressor), entropy(self.compressor))
        self.compressor.select_starting_graph(graph)
        self.context = zl.CCtx()
        self.context.ref_compressor(self.compressor)
        # 2 is "disable".
        settings = {"StickyParameters": 1, "FormatVersion": zl.MAX_FORMAT_VERSION}
        settings.update({"CompressedChecksum": 2, "ContentChecksum": 2})
        for name, value in settings.items():
            self.context.set_parameter(getattr(zl.CParam, name), value)

    def prepare(self, original):
        return self.zl.Input(self.zl.Type.Numeric, self.numpy.frombuffer(original, dtype=self.numpy.uint16))

    def compress(self, prepared):
        return self.context.compress([prepared])

    def decompress(self, packed):
        return self.zl.DCtx().decompress(packed)[0].content.as_nparray()


package, side, path = sys.argv[1:]
with open(path, "rb") as file:
    original = file.read()
codec = {"zipnn": ZipNN, "openzl": OpenZL}[package]()
packed = bytes(codec.compress(codec.prepare(original)))
print("ready", version(package), len(packed), flush=True)
for line in sys.stdin:
    repeats = int(line)
    wall = cpu = 0.0
    for _ in range(repeats):
        given = codec.prepare(original) if side == "compress" else packed
        work = getattr(codec, side)
        wall_before, cpu_before = time.perf_counter(), time.process_time()
        answer = work(given)
        wall += time.perf_counter() - wall_before
        cpu += time.process_time() - cpu_before
    if side == "compress":
        answer = codec.decompress(bytes(answer))
    if memoryview(answer).tobytes() != original:
        print("wrong answer", flush=True)
        sys.exit(1)
    del answer
    print("time", wall / repeats, cpu / repeats, flush=True)
