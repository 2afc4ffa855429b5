"""Values on a GPU from one type and order to another: plain NCHW float32, and NHWC in as many or fewer bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.core.engines.cupy.kernels import C_TYPES, Kernel

_TILE = 32  # rows and columns that a block has, as in convert.cu
_BLOCK = (_TILE, 8)
_MAX_MATRICES = 65535  # in a grid; blocks go through more


class Converter:
    """Copies arrays of float32, float16 or bfloat16 into one another, each in one pass over memory."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._kernels: dict[tuple[str, str, str], Kernel] = {}

    def cast(self, source: Any, target: Any) -> None:
        """Copy to another type in the same order; the arrays, without gaps, have equally many values."""
        self._kernel("cast", source, target).run(source.size, source, target, np.int64(source.size))

    def to_channels_last(self, source: Any, target: Any, shape: Sequence[int]) -> None:
        """Copy (N, C, …), which is `shape`, to (N, …, C); the arrays, without gaps, may have any shape."""
        self._transpose(source, target, shape[0], shape[1], math.prod(shape[2:]))

    def to_channels_first(self, source: Any, target: Any, shape: Sequence[int]) -> None:
        """Copy (N, …, C) to (N, C, …), which is `shape`; the arrays, without gaps, may have any shape."""
        self._transpose(source, target, shape[0], math.prod(shape[2:]), shape[1])

    def _transpose(
        self, source: Any, target: Any, num_matrices: int, num_rows: int, num_columns: int
    ) -> None:
        if num_rows == 1 or num_columns == 1:
            self.cast(source, target)
        elif num_matrices:
            grid = (-(-num_columns // _TILE), -(-num_rows // _TILE), min(num_matrices, _MAX_MATRICES))
            sizes = map(np.int32, (num_matrices, num_rows, num_columns))
            self._kernel("transpose", source, target).launch(grid, _BLOCK, source, target, *sizes)

    def _kernel(self, name: str, source: Any, target: Any) -> Kernel:
        types = C_TYPES[source.dtype.name], C_TYPES[target.dtype.name]
        key = (name, *types)
        if key not in self._kernels:
            self._kernels[key] = Kernel(self._cupy, name, "convert", FROM=types[0], TO=types[1])
        return self._kernels[key]
