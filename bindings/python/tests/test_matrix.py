"""Matrices: what they give back, and products whose bits are those of the written order of sums."""

from __future__ import annotations

import mmap
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
from support import BLOCK, UP, original_of, read

import df11
from df11.matrix import Matrix, bound


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    stored = read(original_of("block"))[UP]
    return np.frombuffer(stored.data, ml_dtypes.bfloat16).reshape(stored.shape)


def test_weights_come_back(weights: np.ndarray) -> None:
    rows, columns = weights.shape
    with df11.open(BLOCK) as model:
        made = Matrix.of_tensor(model[UP], column_count=columns)
        some = Matrix.of_tensor(model[UP], column_count=columns, first_row=10, row_count=30, threads=2)
    for matrix in (made, Matrix.of_weights(weights, rows, columns), Matrix(bytes_at(made))):
        assert (matrix.row_count, matrix.column_count) == weights.shape
        assert matrix.info.matrix_bytes < 1.7 * weights.size < bound(rows, columns)
        out = np.zeros(weights.shape, np.uint16)
        assert matrix.read_into(out) == weights.size
        assert (out == weights.view(np.uint16)).all()
        part = bytearray(20)
        assert matrix.read_into(part, first=columns, count=10) == 10
        assert part == weights[1, :10].tobytes()
    out = np.zeros((30, columns), np.uint16)
    some.read_into(out)
    assert (out == weights[10:40].view(np.uint16)).all()


def bytes_at(matrix: Matrix) -> mmap.mmap:
    """Copies a matrix to other memory that is aligned as it must be."""
    copy = mmap.mmap(-1, matrix.info.matrix_bytes)
    copy[:] = matrix.data[: matrix.info.matrix_bytes]
    return copy


def lanes(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Multiplies in the order that df11.h writes down, with sums of f64 that are rounded to f32 each time."""
    sums = np.zeros((weights.shape[0], 32), np.float32)
    for k in range(0, weights.shape[1], 32):
        exact = weights[:, k : k + 32].astype(np.float64) * x[k : k + 32].astype(np.float64)
        sums = (sums.astype(np.float64) + exact).astype(np.float32)
    for half in (16, 8, 4, 2, 1):
        sums = sums[:, :half] + sums[:, half : 2 * half]
    return sums[:, 0]


def test_products(weights: np.ndarray) -> None:
    rows, columns = weights.shape
    matrix = Matrix.of_weights(weights, rows, columns)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, columns)).astype(ml_dtypes.bfloat16)
    want = np.stack([lanes(weights, vector) for vector in x])
    # The library rounds once and this twice, so that a few sums may differ in their last bits.
    got = matrix.multiply(x)
    assert np.allclose(got, want, rtol=1e-5, atol=1e-5)
    assert (got == want).mean() > 0.9
    assert (matrix.multiply(x.astype(np.float32)) == got).all()
    assert (matrix.multiply(x[1]) == got[1]).all()
    with ThreadPoolExecutor(3) as pool:
        for parts in (1, 2, 3, 7):
            assert (matrix.multiply(x, executor=pool, parts=parts) == got).all()
    y = np.full((2, 5), np.nan, np.float32)
    matrix.multiply_into(x, y, x_dtype=df11.DType.BF16, vector_count=2, first_row=7, row_count=5)
    assert (y == got[:2, 7:12]).all()


def test_mistakes(weights: np.ndarray) -> None:
    rows, columns = weights.shape
    matrix = Matrix.of_weights(weights, rows, columns)
    for wrong in (np.zeros(columns + 1, np.float32), np.zeros(columns, np.float64), np.float32(1)):
        with pytest.raises(df11.InvalidArgumentError):
            matrix.multiply(wrong)
    assert matrix.multiply(np.zeros((0, columns), np.float32)).shape == (0, rows)
    with pytest.raises(df11.BufferTooSmallError):
        matrix.multiply_into(bytes(4 * columns), bytearray(4 * rows - 4))
    with pytest.raises(df11.BufferTooSmallError):
        matrix.multiply_into(bytes(4 * columns - 4), bytearray(4 * rows))
    with pytest.raises(df11.BufferTooSmallError):
        Matrix.of_weights(weights, rows + 1, columns)
    with pytest.raises(df11.InvalidArgumentError):
        matrix.multiply_into(bytes(4 * columns), bytearray(4 * rows), order=99)
    with pytest.raises(df11.InvalidFormatError):
        Matrix(mmap.mmap(-1, 4096))
    with df11.open(BLOCK, derive_shapes=False) as model, pytest.raises(df11.InvalidArgumentError, match="column_count"):
        Matrix.of_tensor(model[UP])
    matrix.close()
    with pytest.raises(df11.InvalidArgumentError, match="closed"):
        matrix.multiply(np.zeros(columns, np.float32))
