"""Matrices at 12 bits a weight, for products on the CPU that have the bits of products with bf16 and take less time."""

from __future__ import annotations

import ctypes as ct
import mmap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

from . import _c
from ._c import DType, MatrixInfo
from ._library import Closing, Handle, ProgressLike, call, default_threads, info, invalid, lib, run
from ._memory import Buffer, Memory, numpy
from ._model import Tensor, _holds, _natural

if TYPE_CHECKING:
    from concurrent.futures import Executor

ALIGNMENT = _c.DF11_MATRIX_ALIGNMENT
"""The first byte of a matrix is at a multiple of this address."""

LANES = _c.DF11_ORDER_LANES
GGML_AVX2 = _c.DF11_ORDER_GGML_AVX2
GGML_AVX512 = _c.DF11_ORDER_GGML_AVX512
GGML_AVX512_BF16 = _c.DF11_ORDER_GGML_AVX512_BF16


def bound(row_count: int, column_count: int) -> int:
    """Returns how many bytes a matrix takes at most, two and a half for each weight; those of trained weights take
    1.5."""
    out = ct.c_uint64()
    call(lib.df11_matrix_bound, _natural(row_count), _natural(column_count), ct.byref(out))
    return out.value


class Matrix(Closing):
    """A matrix of bf16 weights in memory that it keeps. It never changes: any number of threads may use it at once."""

    def __init__(self, data: Buffer) -> None:
        """Takes a matrix where it is: bytes that another one had in `data`, aligned to ALIGNMENT, which must not
        change."""
        memory = Memory(data, writable=False)
        out = ct.c_void_p()
        call(lib.df11_matrix_bind, memory.address, memory.nbytes, ct.byref(out))
        self._handle = Handle("matrix", out.value or 0, lib.df11_matrix_free, memory)
        self.data = data
        """Its bytes, and perhaps others after them: `info.matrix_bytes` are its own."""
        with self._handle as pointer:
            self.info: MatrixInfo = info(lib.df11_matrix_get_info, _c.df11_matrix_info, pointer)

    def __enter__(self) -> Matrix:
        return self

    def __repr__(self) -> str:
        return f"<df11.Matrix of {self.row_count} rows and {self.column_count} columns>"

    @classmethod
    def of_tensor(
        cls,
        tensor: Tensor,
        *,
        column_count: Optional[int] = None,
        first_row: int = 0,
        row_count: Optional[int] = None,
        threads: Optional[int] = None,
        progress: ProgressLike = None,
    ) -> Matrix:
        """Makes a matrix of rows of a bf16 tensor, plain or compressed, whose weights are never all in memory.

        A row has the length of the tensor's last dimension, or `column_count` weights, for one whose shape is not
        known.
        """
        if column_count is None:
            if not tensor.shape_known or not tensor.shape:
                raise invalid(f"the columns of {tensor.name!r} are not known: give column_count")
            column_count = tensor.shape[-1]
        columns = _natural(column_count)
        if row_count is None:
            row_count = max((tensor.element_count // columns if columns else 0) - first_row, 0)
        rows = _natural(row_count)
        workers = default_threads(threads)
        first = _natural(first_row)

        def write(memory: Memory, token: int, out: Any) -> None:
            with tensor.model._handle as model:
                call(
                    lib.df11_model_write_matrix,
                    model,
                    tensor.index,
                    columns,
                    first,
                    rows,
                    memory.address,
                    memory.nbytes,
                    workers,
                    token,
                    ct.byref(out),
                )

        return cls._made(rows, columns, progress, write)

    @classmethod
    def of_weights(
        cls,
        weights: Buffer,
        row_count: int,
        column_count: int,
        *,
        threads: Optional[int] = None,
        progress: ProgressLike = None,
    ) -> Matrix:
        """Makes a matrix of bf16 rows that follow one another in memory."""
        rows, columns = _natural(row_count), _natural(column_count)
        workers = default_threads(threads)
        with Memory(weights, writable=False) as source:
            _holds(source, 2 * rows * columns)

            def write(memory: Memory, token: int, out: Any) -> None:
                call(
                    lib.df11_matrix_write,
                    source.address,
                    rows,
                    columns,
                    memory.address,
                    memory.nbytes,
                    workers,
                    token,
                    ct.byref(out),
                )

            return cls._made(rows, columns, progress, write)

    @classmethod
    def _made(cls, rows: int, columns: int, progress: ProgressLike, write: Any) -> Matrix:
        # Address space for the bound: pages that are never written to take no memory.
        data = mmap.mmap(-1, bound(rows, columns))
        out = ct.c_uint64()
        with Memory(data, writable=True) as memory:
            run("making a matrix", progress, lambda token: write(memory, token, out))
        data.resize(out.value)
        return cls(data)

    @property
    def row_count(self) -> int:
        """Its rows."""
        return self.info.row_count

    @property
    def column_count(self) -> int:
        """Its columns."""
        return self.info.column_count

    def read_into(self, buffer: Buffer, *, first: int = 0, count: Optional[int] = None) -> int:
        """Decodes `count` weights from weight `first` on to a writable buffer; returns how many. One thread works."""
        wanted = max(self.row_count * self.column_count - first, 0) if count is None else _natural(count)
        with Memory(buffer, writable=True) as memory, self._handle as pointer:
            _holds(memory, 2 * wanted)
            call(lib.df11_matrix_decompress, pointer, _natural(first), wanted, memory.address, 2 * wanted)
        return wanted

    def multiply_into(
        self,
        x: Buffer,
        y: Buffer,
        *,
        x_dtype: int = DType.F32,
        vector_count: int = 1,
        first_row: int = 0,
        row_count: Optional[int] = None,
        order: int = LANES,
        executor: Optional[Executor] = None,
        parts: int = 1,
    ) -> None:
        """Multiplies rows with vectors that follow one another in `x`, of type DType.F32 or DType.BF16.

        The sums go to `y`, f32: those of all rows for the first vector, for the second, and so on. They are added in
        the order `order`, so that they do not depend on the processor. This thread works alone, without an executor;
        with one, a pool of threads of yours, it and they take `parts` parts of the rows.
        """
        rows = _natural(max(self.row_count - first_row, 0) if row_count is None else row_count)
        size = {DType.F32: 4, DType.BF16: 2}.get(DType(x_dtype))
        if size is None:
            raise invalid("x has the type F32 or BF16")
        vectors = _natural(vector_count)
        first = _natural(first_row)
        with Memory(x, writable=False) as source, Memory(y, writable=True) as target, self._handle as pointer:
            _holds(source, size * self.column_count * vectors)
            _holds(target, 4 * rows * vectors)

            def multiply(begin: int, end: int) -> None:
                call(
                    lib.df11_matrix_multiply,
                    pointer,
                    first + begin,
                    end - begin,
                    source.address,
                    x_dtype,
                    self.column_count,
                    vectors,
                    order,
                    target.address + 4 * begin,
                    rows,
                )

            if executor is None or parts <= 1 or rows < 2:
                multiply(0, rows)
                return
            ends = [rows * i // parts for i in range(parts + 1)]
            pending = [executor.submit(multiply, *ends[i : i + 2]) for i in range(1, parts)]
            try:
                multiply(0, ends[1])
            finally:
                # The memory is in use until all of them are done.
                failures = [future.exception() for future in pending]
            for failure in failures:
                if failure is not None:
                    raise failure

    def multiply(self, x: Any, *, order: int = LANES, executor: Optional[Executor] = None, parts: int = 1) -> Any:
        """Multiplies with a vector, or the rows of a matrix of them: `x @ weights.T` of numpy, to a new array of
        float32.

        `x` has the type float32, or bfloat16 (ml_dtypes).
        """
        np = numpy()
        if np is None:
            raise ImportError("multiply() needs numpy; multiply_into() does not")
        x = np.ascontiguousarray(x)
        if x.dtype == np.float32:
            x_dtype = DType.F32
        elif x.dtype.name == "bfloat16":
            x_dtype = DType.BF16
        else:
            raise invalid(f"x is of {x.dtype}, and float32 or bfloat16 is needed")
        if x.ndim < 1 or x.shape[-1] != self.column_count:
            raise invalid(f"x has the shape {x.shape}, and the matrix {self.column_count} columns")
        y = np.empty((*x.shape[:-1], self.row_count), np.float32)
        vectors = x.size // self.column_count
        if vectors:
            self.multiply_into(x, y, x_dtype=x_dtype, vector_count=vectors, order=order, executor=executor, parts=parts)
        return y


__all__: Sequence[str] = [
    "ALIGNMENT",
    "GGML_AVX2",
    "GGML_AVX512",
    "GGML_AVX512_BF16",
    "LANES",
    "Matrix",
    "bound",
]
