"""Pooling by kernels of our own, with Caffe's rule for windows that reach beyond the input, in each memory.

cuDNN's own wants the input and the output again in backward, which layers may write over by then; it has neither the
places of maxima nor Caffe's averages over windows that are clipped.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.memory import ChannelsLast
from dtrain.core.engines.cupy.kernels import C_TYPES
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import PoolingSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

_MOST_VALUES = 2**31 - 2**25  # kernels count in ints, in steps of 2**24 at most
_PACK = 8  # channels that a thread has where they lie side by side, if that divides them
_MOST_TAPS = 256  # whose places fit a byte


class Pooling:
    """Carry out a PoolingSpec where the values of x lie. MAX keeps for each window the place within it that won."""

    def __init__(self, spec: PoolingSpec, engine: CudnnEngine) -> None:
        counts = math.prod(spec.x_shape), math.prod(spec.y_shape)
        if not min(counts) or max(counts) > _MOST_VALUES:
            raise NotOffered(f"of {counts[0]} values")
        self.spec = spec
        self.engine = engine
        self.memories = engine.memories
        is_small = math.prod(spec.kernel) <= _MOST_TAPS
        self._winner_type = ("unsigned char", np.uint8) if is_small else ("int", np.int32)
        self._memory: DeviceMemory | ChannelsLast = self.memories.plain
        self._winners: Any = None

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data, and the index h·W + w of each maximum (−1 in a window without inputs) into mask.data."""
        self._memory = self.memories.of(x.data_tensor, self.spec.x_shape)
        if mask is not None:
            self._memory = self.memories.plain
        x_data, y_data = x.read_data(self._memory), y.write_data(self._y_memory())
        if self.spec.method == "AVE":
            assert mask is None, "average pooling has no mask"
            self._run("average_pool", y.count, x_data, y_data)
            return
        if self._winners is None:
            self._winners = self.engine.xp.empty(y.count, self._winner_type[1])
        self._run("max_pool", y.count, x_data, y_data, self._winners)
        if mask is not None:
            self._run("max_pool_places", y.count, self._winners, mask.write_data(self._memory))

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff; for MAX through the winners of the last forward."""
        y_diff, x_diff = y.read_diff(self._y_memory()), x.write_diff(self._memory)
        if self.spec.method == "AVE":
            self._run("average_pool_backward", x.count, y_diff, x_diff)
        else:
            self._run("max_pool_backward", x.count, y_diff, self._winners, x_diff)

    def _y_memory(self) -> DeviceMemory | ChannelsLast:
        return self.memories.best(self.spec.y_shape, isinstance(self._memory, ChannelsLast))

    def _run(self, name: str, count: int, *arrays: Any) -> None:
        spec, is_last = self.spec, isinstance(self._memory, ChannelsLast)
        num_channels = spec.x_shape[1]
        pack = 1 if not is_last or num_channels % _PACK else _PACK
        kernel = self.engine.kernel(
            name,
            "pooling",
            VALUE=C_TYPES[self.memories.dtype(self._memory)],
            WINNER=self._winner_type[0],
            CHANNELS_LAST=str(int(is_last)),
            PACK=str(pack),
        )
        axes = *spec.x_shape[2:], *spec.y_shape[2:], *spec.kernel, *spec.stride, *spec.pad
        sizes = count // pack, num_channels // pack, *axes
        kernel.run(sizes[0], *arrays, *map(np.int32, sizes))
