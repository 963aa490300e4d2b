"""Times what others make of the same weights. Prints a line of JSON for each figure.

    python3 peers.py NAME WEIGHTS

| NAME | what it is | needs | what is measured |
|---|---|---|---|
| nvCOMP | NVIDIA's ANS, on the exponents alone | cupy, nvidia-nvcomp-cu12 or -cu13 with its nvidia-libnvcomp | decoding |
| NWC | the package neural-weight-compression | PyTorch, that package | decoding; the product with a vector, and PyTorch's own |
| SplitZip | the module codec_gpu of the repository of that name | PyTorch, Triton, codec_gpu.py on PYTHONPATH | decoding |

Each is called as its own documentation calls it, and its answer is compared before it is timed. Times are medians of CUDA
events around one call. GB/s are given as bf16, two bytes a weight. vllm-df11 and the reference are not here: their kernels have
DF11's own arrays as parameters, and the benchmark launches them itself.

nvCOMP's figure flatters it, because an engine would still have to join exponents with signs and mantissas. (Versions before 6
wait in each call, and are timed by the host's clock.) SplitZip is made for KV caches, and has 12 bits a weight.
"""
import json
import sys
import time

import numpy

COLUMNS = 4096
ROUNDS = 15


def made(count):
    """bf16 bits, normally distributed in rows whose own deviations spread as a trained layer's do; whole rows."""
    generator = numpy.random.default_rng(11)
    rows = -(-count // COLUMNS)
    sigma = 0.02 * numpy.exp(0.27 * generator.standard_normal((rows, 1), dtype=numpy.float32))
    weights = generator.standard_normal((rows, COLUMNS), dtype=numpy.float32) * sigma
    return (weights.view(numpy.uint32) >> 16).astype(numpy.uint16)


def median(values):
    return sorted(values)[len(values) // 2]


def figure(what, weights, seconds, **more):
    print(json.dumps(dict(
        {"weights": weights, "what": what, "seconds": seconds, "gb_per_s": 2 * weights / seconds * 1e-9}, **more)), flush=True)


def by_events(torch, run):
    """The median time of a call on PyTorch's current stream."""
    times = []
    for round_ in range(ROUNDS + 3):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        run()
        after.record()
        after.synchronize()
        if round_ >= 3:
            times.append(before.elapsed_time(after) * 1e-3)
    return median(times)


def on_device(torch, weights):
    return torch.from_numpy(weights.view(numpy.int16)).view(torch.bfloat16).cuda()


def nvcomp(weights):
    import cupy
    from nvidia import nvcomp as library

    count = weights.size
    plain = cupy.asarray(((weights >> 7) & 0xFF).astype(numpy.uint8).reshape(-1))
    cupy.cuda.Device().synchronize()  # the copy went into another stream
    stream = cupy.cuda.Stream(non_blocking=True)
    codec = library.Codec(algorithm="ANS", cuda_stream=stream.ptr)
    packed = codec.encode(library.as_array(plain))
    stream.synchronize()
    # With memory for the answer and the parsed header at hand, a call only launches. Older versions have neither.
    free_of_waits = hasattr(codec, "decompression_config")
    output = cupy.empty_like(plain)
    config = codec.decompression_config(packed) if free_of_waits else None

    def decode():
        if free_of_waits:
            codec.decode(packed, "|u1", out=output, decompression_config=config)
            return output
        return cupy.asarray(codec.decode(packed, "|u1"))

    decoded = decode()
    stream.synchronize()
    assert bool((decoded == plain).all()), "nvCOMP's answer is wrong"
    times = []
    for _ in range(ROUNDS):
        stream.synchronize()
        before, after = cupy.cuda.Event(), cupy.cuda.Event()
        start = time.perf_counter()
        before.record(stream)
        decode()
        after.record(stream)
        after.synchronize()
        seconds = time.perf_counter() - start
        times.append(cupy.cuda.get_elapsed_time(before, after) * 1e-3 if free_of_waits else seconds)
    figure("nvCOMP ANS, exponents only", count, median(times), bits_per_weight=8 + 8 * cupy.asarray(packed).nbytes / count,
           clock="events" if free_of_waits else "host", version=str(getattr(library, "__version__", "unknown")))


def nwc(weights):
    import nwc as package
    import torch

    matrix = torch.from_numpy(weights.view(numpy.int16)).view(torch.bfloat16)
    packed = package.NWCWeight(matrix, device="cuda")
    plain = matrix.cuda()
    assert torch.equal(packed.dequant().view(torch.int16), plain.view(torch.int16)), "NWC's answer is wrong"
    more = {"bits_per_weight": 8 * packed.bytes / weights.size, "version": package.__version__}
    figure("NWC, decoding", weights.size, by_events(torch, packed.dequant), **more)
    vector = torch.randn(COLUMNS, device="cuda", dtype=torch.float32, generator=torch.Generator("cuda").manual_seed(11))
    figure("NWC, product with a vector", weights.size, by_events(torch, lambda: packed.linear_bf16(vector, None)), **more)
    short = vector.to(torch.bfloat16)
    figure("PyTorch, product with a vector", weights.size, by_events(torch, lambda: torch.mv(plain, short)),
           version=torch.__version__)


def splitzip(weights):
    import torch
    from codec_gpu import ChunkLocalSplitZipGPU

    plain = on_device(torch, weights)
    codec = ChunkLocalSplitZipGPU(device="cuda", chunk_size=1024)
    codec.calibrate(plain)
    packed = codec.encode(plain)
    decoded = codec.decode(packed)
    assert torch.equal(decoded.reshape(-1).view(torch.int16), plain.reshape(-1).view(torch.int16)), "SplitZip's answer is wrong"
    figure("SplitZip", weights.size, by_events(torch, lambda: codec.decode(packed)),
           bits_per_weight=8 * packed.compressed_bytes / weights.size)


if __name__ == "__main__":
    {"nvCOMP": nvcomp, "NWC": nwc, "SplitZip": splitzip}[sys.argv[1]](made(int(sys.argv[2])))
