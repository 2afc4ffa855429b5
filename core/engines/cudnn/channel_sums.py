"""The gradient of a bias with channels last, by a kernel of our own: in float32, where cuDNN's would be rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.engines.cudnn.norm_kernels import Rows
from dtrain.core.engines.cupy.kernels import C_TYPES
from dtrain.core.engines.operations import Shape

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class ChannelSums:
    """Sums over all but the channels of values of `shape` (N, C, spatial…) in arrays (N, spatial…, C)."""

    def __init__(self, engine: CudnnEngine, shape: Shape) -> None:
        self._engine = engine
        self._rows = Rows.of(shape)
        self._workspace: Any = None  # kept while a graph may have its address

    def run(self, x: Any, totals: Any, adds: bool) -> None:
        """Overwrite `totals`, float32 (C,), or add to it."""
        rows, num_channels = self._rows, self._rows.num_packs * self._rows.pack
        num_bytes = 4 * rows.grid[1] * num_channels
        self._workspace = self._engine.lend(num_bytes)
        partial = self._workspace[:num_bytes].view(np.float32)
        types = {"VALUE": C_TYPES[x.dtype.name], "PACK": str(rows.pack)}
        kernel = self._engine.kernel("channel_sums", "channel_sums", **types)
        kernel.launch(rows.grid, rows.block, x, partial, np.int32(rows.num_rows), np.int32(rows.num_packs))
        sizes = map(np.int32, (rows.grid[1], num_channels, adds))
        self._engine.kernel("channel_totals", "channel_sums", **types).run(
            num_channels, partial, totals, *sizes
        )
