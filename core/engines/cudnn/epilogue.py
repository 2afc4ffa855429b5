"""What comes behind a convolution or a sum, in one pass: a bias, another blob, and a ReLU that lets NaN through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.memory import ChannelsLast
from dtrain.core.engines.cupy.kernels import C_TYPES
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.operations import Shape

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

_AT_ONCE = 8  # values that a thread of the kernel takes
_BIAS, _ADDED, _RELU = 1, 2, 4


class Epilogue:
    """y + bias + added, then max(·, 0) with `relu`, written over y (N, C, spatial…); float32 inside.

    bias, adds: whether there are a number a channel, and a blob of y's shape.
    """

    def __init__(self, engine: CudnnEngine, y_shape: Shape, bias: bool, adds: bool, relu: bool) -> None:
        self._engine = engine
        self._count, self._num_channels = math.prod(y_shape), y_shape[1]
        self._num_places = math.prod(y_shape[2:])
        self._flags = _BIAS * bias | _ADDED * adds | _RELU * relu

    def run(
        self, y_data: Any, memory: DeviceMemory | ChannelsLast, bias: Blob | None, added: Blob | None = None
    ) -> None:
        """Do it to an array of `memory`."""
        if not self._flags:
            return
        plain = self._engine.memories.plain
        biases = self._engine.no_numbers if bias is None else bias.read_data(plain)
        values = y_data if added is None else added.read_data(memory)
        distance = 1 if isinstance(memory, ChannelsLast) else self._num_places
        sizes = self._count, self._num_channels, distance, self._flags
        run_kernel(self._engine, y_data, values, biases, y_data, sizes)


def add(engine: CudnnEngine, x: Any, other: Any, y: Any, relu: bool = False) -> None:
    """Overwrite `y` by x + other, then max(·, 0) with `relu`: arrays of one type and order. y may be x."""
    run_kernel(engine, x, other, engine.no_numbers, y, (y.size, 1, 1, _ADDED | _RELU * relu))


def run_kernel(
    engine: CudnnEngine, x: Any, added: Any, biases: Any, y: Any, sizes: tuple[int, int, int, int]
) -> None:
    """Launch the kernel on arrays of one type; sizes: the count of values, of channels, the distance, the flags."""
    kernel = engine.kernel("finish", "epilogue", VALUE=C_TYPES[y.dtype.name])
    kernel.run(-(-sizes[0] // _AT_ONCE), x, added, biases, y, *map(np.int32, sizes))


def pass_gradient(engine: CudnnEngine, y: Any, y_diff: Any, diff: Any) -> None:
    """Overwrite `diff`, which may be y_diff, by y_diff·(y > 0): arrays of one type and order."""
    kernel = engine.kernel("relu_gradient", "epilogue", VALUE=C_TYPES[y.dtype.name])
    kernel.run(-(-y.size // _AT_ONCE), y, y_diff, diff, np.int32(y.size))
