"""Times PyTorch's own products of bf16 matrices with few vectors, which are cuBLAS's. Prints a line of JSON for each figure.

    python3 torch_products.py 4096x4096,4096x14336 [BATCHES]

A figure is that of one call among 16 in a replayed graph, as those of `bench --products`, on matrices that rotate so that none is
still in the L2 cache when its turn comes again. Needs PyTorch with CUDA (without: status 77). Where the package
neural-weight-compression is there, its product with one vector is timed on the same matrices, and where bf16_huffman_infer is,
its products with up to eight. The calls are those that their wheels have; neither has been run.
"""
import importlib.metadata
import importlib.util
import json
import sys

import torch

IN_GRAPH, REPLAYS = 16, 12


def figure(what, weights, seconds, **more):
    print(json.dumps(dict(
        {"weights": weights, "what": what, "seconds": seconds, "gb_per_s": 2 * weights / seconds * 1e-9}, **more)), flush=True)


def seconds_of(run):
    """The median time of a call, from replays of a graph of `IN_GRAPH` of them; `run` takes the call's number."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for number in range(3):
            run(number)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(IN_GRAPH):
            run(number)
    times = []
    for replay in range(REPLAYS + 1):
        before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        before.record()
        graph.replay()
        after.record()
        after.synchronize()
        if replay > 0:
            times.append(before.elapsed_time(after) * 1e-3 / IN_GRAPH)
    return sorted(times)[len(times) // 2]


def measure(rows, columns, batches):
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = 2 * cache // (2 * rows * columns) + 2
    generator = torch.Generator("cuda").manual_seed(11)
    matrices = [torch.empty(rows, columns, device="cuda", dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
                for _ in range(sets)]
    for batch in batches:
        x = torch.randn(batch, columns, device="cuda", generator=generator).to(torch.bfloat16)
        y = torch.empty(batch, rows, device="cuda", dtype=torch.bfloat16)
        seconds = seconds_of(lambda number: torch.matmul(x, matrices[number % sets].t(), out=y))
        figure(f"cuBLAS {rows} x {columns}, batch {batch}", rows * columns, seconds, version=torch.__version__)
    if importlib.util.find_spec("nwc") is not None:
        import nwc

        packed = [nwc.NWCWeight(matrix.cpu(), device="cuda") for matrix in matrices]
        vector = torch.randn(columns, device="cuda", dtype=torch.float32, generator=generator)
        seconds = seconds_of(lambda number: packed[number % sets].linear_bf16(vector, None))
        figure(f"NWC {rows} x {columns}, batch 1", rows * columns, seconds, version=nwc.__version__,
               bits_per_weight=8 * packed[0].bytes / (rows * columns))
    # It makes tiles of 128 x 128.
    if importlib.util.find_spec("bf16_huffman_infer") is not None and rows % 128 == 0 and columns % 128 == 0:
        from bf16_huffman_infer import HuffmanWeight, linear_huffman

        packed = [HuffmanWeight.compress(matrix).cuda() for matrix in matrices]
        held = sum(buffer.nbytes for buffer in packed[0].buffers())
        for batch in (batch for batch in batches if batch <= 8):
            x = torch.randn(batch, columns, device="cuda", generator=generator).to(torch.bfloat16)
            seconds = seconds_of(lambda number: linear_huffman(x, packed[number % sets]))
            figure(f"bf16_huffman_infer {rows} x {columns}, batch {batch}", rows * columns, seconds,
                   version=importlib.metadata.version("bf16_huffman_infer"), bits_per_weight=8 * held / (rows * columns))


def main():
    if not torch.cuda.is_available():
        print(f"missing: a CUDA device that PyTorch {torch.__version__} can use")
        return 77
    batches = [int(batch) for batch in (sys.argv[2] if len(sys.argv) > 2 else "1,2,4,8").split(",")]
    for shape in sys.argv[1].split(","):
        measure(*map(int, shape.split("x")), batches)
    return 0


if __name__ == "__main__":
    sys.exit(main())
