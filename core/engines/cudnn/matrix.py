"""Matrix products by cuBLAS."""

from __future__ import annotations

from typing import Any

from dtrain.core.engines.cudnn.binding import ONE, ZERO, address
from dtrain.core.engines.cudnn.cublas import Cublas

# cuBLAS's and CUDA's numbers (cublas_api.h, library_types.h).
_AS_IT_LIES, _TRANSPOSED = 0, 1
_TYPES = {"float32": 0, "float16": 2, "bfloat16": 14}
_FLOAT32, _TF32 = 68, 77  # what is computed in
_ANY_ALGORITHM = -1


class Matrices:
    """Multiplies row-major matrices of float32 or of 16-bit values; sums are float32. cupy: the module."""

    def __init__(self, cupy: Any, allows_tf32: bool) -> None:
        self._cublas = Cublas(cupy)
        self._computed_in = _TF32 if allows_tf32 else _FLOAT32

    def multiply(
        self,
        a: Any,
        b: Any,
        out: Any,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        adds: bool = False,
    ) -> None:
        """Overwrite `out` (M, N) by a·b, of matrices (M, K) and (K, N) as they lie or transposed, or add that to it.

        a and b are of one type, `out` of the same or float32.
        """
        num_rows, num_columns = out.shape
        depth = a.shape[0] if transpose_a else a.shape[1]
        is_float32 = a.dtype.name == "float32"
        # For cuBLAS, which counts by columns, a row-major matrix is its transpose: outᵀ = bᵀ·aᵀ.
        self._cublas.multiply(
            *(_TRANSPOSED if is_transposed else _AS_IT_LIES for is_transposed in (transpose_b, transpose_a)),
            *(num_columns, num_rows, depth, ONE),
            *(address(b), _TYPES[b.dtype.name], b.shape[1]),
            *(address(a), _TYPES[a.dtype.name], a.shape[1]),
            *(ONE if adds else ZERO, address(out), _TYPES[out.dtype.name], num_columns),
            *(self._computed_in if is_float32 else _FLOAT32, _ANY_ALGORITHM),
        )
