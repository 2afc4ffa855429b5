"""Matrix products by cuBLAS."""

from __future__ import annotations

import ctypes
from typing import Any

from dtrain.core.engines.cupy.cublas import Cublas

# cuBLAS's and CUDA's numbers (cublas_api.h, library_types.h).
_AS_IT_LIES, _TRANSPOSED = 0, 1
_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
_FLOAT32, _FLOAT64, _TF32 = 68, 70, 77  # what is computed in
_ANY_ALGORITHM = -1

# Factors of what was there, 0 or 1, and of the product, 1: in the type that is computed in.
_IN_FLOAT32, _IN_FLOAT64 = (
    tuple(ctypes.byref(kind(factor)) for factor in (0, 1)) for kind in (ctypes.c_float, ctypes.c_double)
)


class Matrices:
    """Multiplies matrices of one type: float64, or float32 or 16-bit values, whose sums are float32.

    allows_tf32: what is multiplied in float32 may be rounded to TF32.
    """

    def __init__(self, cublas: Cublas, allows_tf32: bool) -> None:
        self._cublas = cublas
        self._computed_in = {"float32": _TF32 if allows_tf32 else _FLOAT32, "float64": _FLOAT64}

    def multiply(self, a: Any, b: Any, out: Any, *, adds: bool = False) -> None:
        """Overwrite `out` (M, N) by a·b, of matrices (M, K) and (K, N), or add that to it.

        Or by the products of two stacks of equally many, (S, M, K) and (S, K, N), in (S, M, N). a and b are of one
        type, `out` of the same, or float32 where they are 16 bits. What lies by rows or, as a transposed view does,
        by columns is multiplied where it is; `out` has no gaps.
        """
        *stack, num_rows, num_columns = out.shape
        depth, name = a.shape[-1], a.dtype.name
        assert (*stack, num_rows, depth) == a.shape, f"{a.shape} times {b.shape} is not {out.shape}"
        assert (*stack, depth, num_columns) == b.shape, f"{a.shape} times {b.shape} is not {out.shape}"
        assert out.flags.c_contiguous, f"an array of shape {out.shape} has strides {out.strides}"
        if 0 in (*out.shape, depth):
            if not adds:
                out.fill(0)
            return
        left, right = _Operand(self._cublas, a), _Operand(self._cublas, b)
        factors = _IN_FLOAT64 if name == "float64" else _IN_FLOAT32
        # For cuBLAS, which counts by columns, a row-major matrix is its transpose: outᵀ = bᵀ·aᵀ.
        multiply = self._cublas.multiply_stacks if stack else self._cublas.multiply
        multiply(
            *(right.order, left.order, num_columns, num_rows, depth, factors[1]),
            *right.arguments,
            *left.arguments,
            *(factors[adds], out.data.ptr, _TYPES[out.dtype.name], num_columns),
            *((num_rows * num_columns, *stack) if stack else ()),
            *(self._computed_in.get(name, _FLOAT32), _ANY_ALGORITHM),
        )


class _Operand:
    """A matrix, or a stack of them, as cuBLAS is told of it; what lies neither way is copied.

    arguments: address, type, step from row to row (or column to column), and in a stack from matrix to matrix.
    """

    def __init__(self, cublas: Cublas, array: Any) -> None:
        found = _find_order(array)
        if found is None or array.strides[0] < 0:
            array = cublas.cupy.ascontiguousarray(array)
            found = _AS_IT_LIES, array.shape[-1]
        self._array = array  # a copy is to live until it is multiplied
        self.order, step = found
        steps = [step] if array.ndim == 2 else [step, array.strides[0] // array.itemsize]
        self.arguments = array.data.ptr, _TYPES[array.dtype.name], *steps


def _find_order(array: Any) -> tuple[int, int] | None:
    """Return whether matrices lie by rows or by columns and the step from one to the next; None if by neither."""
    num_rows, num_columns = array.shape[-2:]
    row_step, column_step = (step // array.itemsize for step in array.strides[-2:])
    if num_columns == 1 or column_step == 1:
        row_step = row_step if num_rows > 1 else num_columns
        if row_step >= num_columns:
            return _AS_IT_LIES, row_step
    if num_rows == 1 or row_step == 1:
        column_step = column_step if num_columns > 1 else num_rows
        if column_step >= num_rows:
            return _TRANSPOSED, column_step
    return None
