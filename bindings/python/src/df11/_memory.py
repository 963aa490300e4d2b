"""Memory of Python's objects, by its address; and numpy, where it is there."""

from __future__ import annotations

import ctypes as ct
import functools
from typing import Any, NamedTuple, Union

from ._c import DType


class Address(NamedTuple):
    """Memory by its address, which you keep valid during the call: a destination or a source, as any buffer is."""

    address: int
    nbytes: int


# Whatever has Python's buffer protocol (bytes, bytearray, memoryview, mmap, array, a numpy array), or an Address.
Buffer = Union[Address, Any]


class _PyBuffer(ct.Structure):
    """Py_buffer of CPython, whose layout is part of its stable ABI."""

    _fields_ = [
        ("buf", ct.c_void_p),
        ("obj", ct.c_void_p),
        ("len", ct.c_ssize_t),
        ("itemsize", ct.c_ssize_t),
        ("readonly", ct.c_int),
        ("ndim", ct.c_int),
        ("format", ct.c_char_p),
        ("shape", ct.c_void_p),
        ("strides", ct.c_void_p),
        ("suboffsets", ct.c_void_p),
        ("internal", ct.c_void_p),
    ]


_WRITABLE = 1
# Functions of our own, so that nobody else's types are changed.
_get = ct.PYFUNCTYPE(ct.c_int, ct.py_object, ct.POINTER(_PyBuffer), ct.c_int)(("PyObject_GetBuffer", ct.pythonapi))
_release = ct.PYFUNCTYPE(None, ct.POINTER(_PyBuffer))(("PyBuffer_Release", ct.pythonapi))


class Memory:
    """The bytes of an object, held until the end of a `with`, or with this object."""

    __slots__ = ("_view", "address", "nbytes")

    def __init__(self, source: Buffer, writable: bool) -> None:
        self._view = None
        if isinstance(source, Address):
            self.address, self.nbytes = source
            return
        view = _PyBuffer()
        # No format is asked for, so that arrays of types that Python does not know, such as bfloat16, have one too.
        # What is not contiguous is refused.
        _get(source, ct.byref(view), _WRITABLE if writable else 0)
        self._view = view
        self.address, self.nbytes = view.buf or 0, view.len

    def release(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            _release(ct.byref(view))

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


@functools.cache
def numpy() -> Any:
    """Returns numpy, or None without it."""
    try:
        import numpy as np
    except ImportError:
        return None
    return np


@functools.cache
def _ml_dtypes() -> Any:
    try:
        import ml_dtypes  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    return ml_dtypes


_NUMPY = {
    DType.BF16: "uint16",
    DType.F16: "float16",
    DType.F32: "float32",
    DType.F64: "float64",
    DType.BOOL: "bool",
    DType.U8: "uint8",
    DType.I8: "int8",
    DType.U16: "uint16",
    DType.I16: "int16",
    DType.U32: "uint32",
    DType.I32: "int32",
    DType.U64: "uint64",
    DType.I64: "int64",
    DType.F8_E5M2: "uint8",
    DType.F8_E4M3: "uint8",
    DType.F8_E8M0: "uint8",
    DType.F8_E4M3FNUZ: "uint8",
    DType.F8_E5M2FNUZ: "uint8",
    DType.C64: "complex64",
}
_ML_DTYPES = {
    DType.BF16: "bfloat16",
    DType.F8_E5M2: "float8_e5m2",
    DType.F8_E4M3: "float8_e4m3fn",
    DType.F8_E8M0: "float8_e8m0fnu",
    DType.F8_E4M3FNUZ: "float8_e4m3fnuz",
    DType.F8_E5M2FNUZ: "float8_e5m2fnuz",
}


def numpy_dtype(dtype: int, bits: bool) -> Any:
    """Returns numpy's type for a type of elements; None for one whose elements are no whole bytes."""
    if dtype not in _NUMPY:
        return None
    kind = DType(dtype)
    there = None if bits or kind not in _ML_DTYPES else getattr(_ml_dtypes(), _ML_DTYPES[kind], None)
    return numpy().dtype(there or _NUMPY[kind])
