"""Decodes into PyTorch's own tensors on PyTorch's own stream, eagerly and inside a captured graph, and compares every bit.

    python3 torch_check.py LIBRARY MODEL...

This is the library as an engine on the CUDA runtime meets it: one process, one primary context, memory of the engine's
allocator, a current stream that is not the default one. Needs PyTorch with CUDA (without: status 77); cupy, where it is
there, takes a turn too. A difference is counted, and the checks go on.
"""
import ctypes
import sys

import torch


class Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int32), ("native_code", ctypes.c_int32), ("message", ctypes.c_char * 504)]


class GroupInfo(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("element_count", ctypes.c_uint64),
        ("tensor_count", ctypes.c_uint64),
        ("first_tensor", ctypes.c_uint64),
        ("packed_bytes", ctypes.c_uint64),
        ("image_bytes", ctypes.c_uint64),
    ]


class Library:
    """The functions used here; a status other than 0 becomes an exception."""

    def __init__(self, path):
        self.library = ctypes.CDLL(path)

    def __getattr__(self, name):
        function = getattr(self.library, name)

        def call(*arguments):
            error = Error()
            status = function(*arguments, ctypes.byref(error))
            if status != 0:
                raise RuntimeError(f"{name}: status {status}: {error.message.decode()}")

        return call


def pointer(value):
    """An object's address or a handle as the ABI takes them: 64 bits."""
    return ctypes.c_uint64(value)


def check(library, path):
    """Checks every group of a model; returns how many checks passed and failed."""
    model, device = ctypes.c_void_p(), ctypes.c_void_p()
    library.df11_model_open(path.encode(), None, ctypes.byref(model))
    torch.cuda.init()
    library.df11_device_open(ctypes.c_int32(torch.cuda.current_device()), None, ctypes.byref(device))
    count = library.library.df11_model_group_count
    count.restype = ctypes.c_uint64
    stream = torch.cuda.Stream()
    passed = failed = 0
    for number in range(count(model)):
        info = GroupInfo(struct_size=ctypes.sizeof(GroupInfo))
        library.df11_model_get_group_info(model, pointer(number), ctypes.byref(info))
        weights, name = info.element_count, info.name.decode()
        want = torch.empty(weights, dtype=torch.int16)
        library.df11_model_decompress(
            model, pointer(number), pointer(0), pointer(weights), ctypes.c_void_p(want.data_ptr()),
            ctypes.c_size_t(2 * weights), ctypes.c_uint32(4))
        resident = ctypes.c_void_p()
        status = torch.zeros(1, dtype=torch.int32, device="cuda")
        image = torch.empty(info.image_bytes, dtype=torch.uint8, device="cuda")
        output = torch.zeros(weights, dtype=torch.bfloat16, device="cuda")
        torch.cuda.synchronize()

        def decompress(on):
            library.df11_resident_decompress(
                resident, pointer(output.data_ptr()), ctypes.c_size_t(2 * weights), pointer(status.data_ptr()),
                ctypes.c_void_p(on.cuda_stream))

        def compare(what):
            nonlocal passed, failed
            torch.cuda.synchronize()
            differ = int((output.view(torch.int16).cpu() != want).sum())
            if differ == 0 and status.item() == 0:
                passed += 1
            else:
                failed += 1
                print(f"FAILED {what} of '{name}': {differ} of {weights} weights differ, status {status.item()}", flush=True)

        with torch.cuda.stream(stream):
            library.df11_device_upload(
                device, model, pointer(number), pointer(image.data_ptr()), ctypes.c_size_t(info.image_bytes),
                ctypes.c_void_p(stream.cuda_stream), ctypes.byref(resident))
            decompress(stream)
        compare("the eager answer")
        graph = torch.cuda.CUDAGraph()
        output.zero_()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            decompress(torch.cuda.current_stream())
        for _ in range(2):
            output.zero_()
            graph.replay()
            compare("the graph's answer")
        cupy_stream = new_cupy_stream()
        if cupy_stream is not None:
            output.zero_()
            torch.cuda.synchronize()
            library.df11_resident_decompress(
                resident, pointer(output.data_ptr()), ctypes.c_size_t(2 * weights), pointer(status.data_ptr()),
                ctypes.c_void_p(cupy_stream.ptr))
            cupy_stream.synchronize()
            compare("the answer on cupy's stream")
        library.library.df11_resident_free(resident)
    library.library.df11_device_free(device)
    library.library.df11_model_free(model)
    print(f"{path}: {passed} passed, {failed} failed", flush=True)
    return passed, failed


def new_cupy_stream():
    """A stream of cupy's, None without cupy."""
    try:
        import cupy
    except ImportError:
        return None
    return cupy.cuda.Stream(non_blocking=True)


def main():
    if not torch.cuda.is_available():
        print(f"missing: a CUDA device that PyTorch {torch.__version__} can use")
        return 77
    library = Library(sys.argv[1])
    counts = [check(library, path) for path in sys.argv[2:]]
    passed, failed = (sum(count[i] for count in counts) for i in range(2))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
