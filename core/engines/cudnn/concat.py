"""Blobs one after the other along the channels, where they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.memory import ChannelsLast, bits
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ConcatSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class Concat:
    """Carry out a ConcatSpec along axis 1, with channels last where most of x lies so."""

    def __init__(self, spec: ConcatSpec, engine: CudnnEngine) -> None:
        if spec.axis != 1 or any(0 in shape for shape in spec.x_shapes):
            raise NotOffered(f"of shapes {spec.x_shapes} along axis {spec.axis}")
        self.memories = engine.memories
        self.x_shapes = spec.x_shapes
        ends = list(itertools.accumulate(shape[1] for shape in spec.x_shapes))
        self._parts = [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        first = spec.x_shapes[0]
        self.y_shape = (first[0], ends[-1], *first[2:])

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        pairs = zip(xs, self.x_shapes, strict=True)
        num_last = sum(isinstance(self.memories.of(x.data_tensor, shape), ChannelsLast) for x, shape in pairs)
        memory = self.memories.best(self.y_shape, 2 * num_last > len(xs))
        y_data = y.write_data(memory)
        for x, memory_of_x, part in zip(xs, self._x_memories(memory), self._parts, strict=True):
            _part(memory, y_data, part)[...] = bits(x.read_data(memory_of_x))

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Cut y.diff into the diff of each wanted x."""
        memory = self.memories.of(y.diff_tensor, self.y_shape)
        y_diff = y.read_diff(memory)
        memories = self._x_memories(memory)
        for x, memory_of_x, part, is_wanted in zip(xs, memories, self._parts, wanted, strict=True):
            if is_wanted:
                bits(x.write_diff(memory_of_x))[...] = _part(memory, y_diff, part)

    def _x_memories(self, memory: DeviceMemory | ChannelsLast) -> Iterator[DeviceMemory | ChannelsLast]:
        return (self.memories.best(shape, isinstance(memory, ChannelsLast)) for shape in self.x_shapes)


def _part(memory: DeviceMemory | ChannelsLast, values: Any, channels: slice) -> Any:
    values = bits(values)
    return values[..., channels] if isinstance(memory, ChannelsLast) else values[:, channels]
