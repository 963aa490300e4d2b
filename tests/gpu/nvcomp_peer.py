"""nvCOMP's ANS on the exponents alone: the nearest thing that NVIDIA ships. Prints one JSON object.

    python3 nvcomp_peer.py WEIGHTS

Needs cupy and nvCOMP's Python package (nvidia-nvcomp-cu12 or -cu13). Decoding gives the exponents, one byte a weight; an engine would still have to
join them with signs and mantissas, so the figure flatters nvCOMP; on the other hand it has in it what the Python call
does on the host, which matters for small groups. GB/s are given as bf16, two bytes a weight.
"""
import json
import sys
import time

import cupy
import numpy
from nvidia import nvcomp


def main():
    count = int(sys.argv[1])
    generator = numpy.random.default_rng(11)
    rows = -(-count // 4096)
    sigma = 0.02 * numpy.exp(0.27 * generator.standard_normal((rows, 1), dtype=numpy.float32))
    weights = generator.standard_normal((rows, 4096), dtype=numpy.float32) * sigma
    exponents = ((weights.view(numpy.uint32) >> 23) & 0xFF).astype(numpy.uint8).reshape(-1)[:count]
    plain = cupy.asarray(exponents)
    cupy.cuda.Device().synchronize()  # the copy went into another stream
    stream = cupy.cuda.Stream(non_blocking=True)
    codec = nvcomp.Codec(algorithm="ANS", cuda_stream=stream.ptr)
    packed = codec.encode(nvcomp.as_array(plain))
    stream.synchronize()
    decoded = cupy.asarray(codec.decode(packed, "|u1"))
    stream.synchronize()
    assert bool((decoded == plain).all()), "nvCOMP's answer is wrong"
    times = []
    for _ in range(12):
        stream.synchronize()
        start = time.perf_counter()
        codec.decode(packed, "|u1")
        stream.synchronize()
        times.append(time.perf_counter() - start)
    seconds = sorted(times)[len(times) // 2]
    bits = 8 + 8 * cupy.asarray(packed).nbytes / count
    print(json.dumps({
        "weights": count, "what": "nvCOMP ANS, exponents only", "seconds": seconds, "gb_per_s": 2 * count / seconds * 1e-9,
        "bits_per_weight": bits, "version": str(getattr(nvcomp, "__version__", "unknown")),
    }))


if __name__ == "__main__":
    main()
