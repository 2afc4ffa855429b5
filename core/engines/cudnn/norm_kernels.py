"""Batch normalisation with channels last by kernels of our own: with a ReLU, in two passes over x each way.

cuDNN's functions are slow at that order but for one that rounds sums to integers, and its maximum hides NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.engines.cupy.kernels import C_TYPES
from dtrain.core.engines.operations import Shape

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

_THREADS = 256  # of a block, as in batch_norm.cu
_MOST_PACKS = 32  # of channels that lie side by side in a block
_PACK = 8  # channels that a thread has, if that divides them
_BLOCKS = 1024  # or so, of a grid: several for each processor of the largest GPU


@dataclass(frozen=True)
class Rows:
    """How values (N, spatial…, C) are dealt to threads as (rows, packs of channels). grid, block: of the launch."""

    num_rows: int
    num_packs: int
    pack: int
    grid: tuple[int, int]
    block: tuple[int, int]

    @classmethod
    def of(cls, shape: Shape) -> Rows:
        """Return that for values of `shape` (N, C, spatial…)."""
        num_rows, pack = math.prod(shape) // shape[1], 1 if shape[1] % _PACK else _PACK
        num_packs = shape[1] // pack
        width = min(_MOST_PACKS, 1 << (num_packs - 1).bit_length())
        block = width, _THREADS // width
        columns = -(-num_packs // width)
        grid = columns, min(-(-num_rows // block[1]), max(1, _BLOCKS // columns))
        return cls(num_rows, num_packs, pack, grid, block)


class NormKernels:
    """The kernels for values of `shape` (N, C, spatial…) in arrays (N, spatial…, C), with or without `relu`.

    Arrays of a number a channel are float32; statistics are means and 1 / sqrt(variance + eps).
    """

    def __init__(self, engine: CudnnEngine, shape: Shape, relu: bool) -> None:
        self._engine = engine
        self._num_channels = shape[1]
        rows = Rows.of(shape)
        self._pack, self._grid, self._block = rows.pack, rows.grid, rows.block
        self._sizes = np.int32(rows.num_rows), np.int32(rows.num_packs)
        self._relu = np.int32(relu)
        self._totals = engine.xp.empty(2 * shape[1], np.float32)
        self._workspace: Any = None  # kept while a graph may have its address

    def forward(
        self,
        x: Any,
        y: Any,
        params: tuple[Any, Any],
        kept: tuple[Any, Any],
        given: tuple[Any, Any],
        eps: float,
    ) -> None:
        """Overwrite y, `kept` by the statistics, and `given` by mean and variance. params: scale and shift."""
        partial = self._partial()
        self._launch("norm_sums", x, x, partial, *self._sizes)
        sizes = np.int32(self._grid[1]), self._sizes[0], np.int32(self._num_channels), np.float64(eps)
        self._run("norm_statistics", x, x, partial, *kept, *given, *sizes)
        self.apply(x, y, params, kept)

    def apply(self, x: Any, y: Any, params: tuple[Any, Any], kept: tuple[Any, Any]) -> None:
        """Overwrite y by what statistics that are known give."""
        self._launch("norm_apply", x, x, *kept, *params, y, *self._sizes, self._relu)

    def backward(
        self,
        x: Any,
        y_diff: Any,
        params: tuple[Any, Any],
        kept: tuple[Any, Any],
        diffs: tuple[Any, Any],
        flags: int,
        x_diff: Any,
    ) -> None:
        """Overwrite x_diff, unless that is None, and write the gradients of scale and shift to `diffs`.

        flags: 1 where the scale's is wanted, 2 where it is added to what is there; 4 and 8 likewise for the shift.
        """
        partial, totals = self._partial(), self._totals
        operands = x, y_diff, *kept, *params
        self._launch("norm_gradient_sums", x, *operands, partial, *self._sizes, self._relu)
        sizes = np.int32(self._grid[1]), np.int32(self._num_channels), np.int32(flags)
        self._run("norm_params", x, partial, totals, *diffs, *sizes)
        if x_diff is not None:
            self._launch("norm_gradient", x, *operands, totals, x_diff, *self._sizes, self._relu)

    def _partial(self) -> Any:
        num_bytes = 2 * 4 * self._grid[1] * self._num_channels
        self._workspace = self._engine.lend(num_bytes)
        return self._workspace[:num_bytes].view(np.float32)

    def _launch(self, name: str, values: Any, *args: Any) -> None:
        self._kernel(name, values).launch(self._grid, self._block, *args)

    def _run(self, name: str, values: Any, *args: Any) -> None:
        self._kernel(name, values).run(self._num_channels, *args)

    def _kernel(self, name: str, values: Any) -> Any:
        types = {"VALUE": C_TYPES[values.dtype.name], "PACK": str(self._pack)}
        return self._engine.kernel(name, "batch_norm", **types)
