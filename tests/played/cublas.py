"""What is used of cuBLAS by way of cupy, by numpy: gemmEx, on the memory of played device arrays.

Matrices are given by columns, with a distance from column to column. As strict as cuBLAS: numbers must be plain ints,
addresses those of living arrays that are large enough, and only types that go together are multiplied.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from tests.played.cupy import room_at

HANDLE = 4711
TYPES = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 14: np.dtype(ml_dtypes.bfloat16)}


def gemm_ex(
    handle: int, op_a: int, op_b: int, m: int, n: int, k: int, alpha: int, a_at: int, a_type: int, lda: int,
    b_at: int, b_type: int, ldb: int, beta: int, c_at: int, c_type: int, ldc: int, compute_type: int, algorithm: int,
) -> None:  # fmt: skip
    """Compute C = alpha·op(A)·op(B) + beta·C, op(A) being (m, k) and op(B) (k, n)."""
    given: list[Any] = [handle, op_a, op_b, m, n, k, alpha, a_at, lda, b_at, ldb, beta, c_at, ldc]
    assert all(type(number) is int for number in given)
    assert (handle, algorithm) == (HANDLE, -1)
    assert a_type == b_type
    assert c_type in (a_type, 0)
    assert compute_type == 68 or (compute_type, a_type) == (77, 0)
    a = _columns(a_at, a_type, (k, m) if op_a else (m, k), lda)
    b = _columns(b_at, b_type, (n, k) if op_b else (k, n), ldb)
    c = _columns(c_at, c_type, (m, n), ldc)
    wide = [values.astype(np.float64) for values in (a.T if op_a else a, b.T if op_b else b)]
    new, old = (ctypes.c_float.from_address(factor).value for factor in (alpha, beta))
    c[...] = (new * (wide[0] @ wide[1]) + (c.astype(np.float64) if old else 0)).astype(c.dtype)


def _columns(address: int, number: int, shape: tuple[int, int], distance: int) -> np.ndarray:
    dtype = TYPES[number]
    assert distance >= shape[0]
    num_bytes = ((shape[1] - 1) * distance + shape[0]) * dtype.itemsize
    assert num_bytes <= room_at(address), "an array is too small, or dead"
    buffer = (ctypes.c_char * num_bytes).from_address(address)
    return np.ndarray(shape, dtype, buffer, strides=(dtype.itemsize, distance * dtype.itemsize))


def play_cublas(cupy: Any) -> None:
    """Give a played cupy its cuBLAS."""
    cupy.cuda.cublas = SimpleNamespace(gemmEx=gemm_ex)
    cupy.cuda.device = SimpleNamespace(get_cublas_handle=lambda: HANDLE)
