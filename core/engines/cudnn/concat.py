"""Blobs one after the other along the channels, where they lie."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.memory import ChannelsLast
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ConcatSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

_MOST_AT_ONCE = 4  # channels of 16 bits


class Concat:
    """Carry out a ConcatSpec along axis 1, with channels last where most of x lies so."""

    def __init__(self, spec: ConcatSpec, engine: CudnnEngine) -> None:
        if spec.axis != 1 or any(0 in shape for shape in spec.x_shapes):
            raise NotOffered(f"of shapes {spec.x_shapes} along axis {spec.axis}")
        self.memories = engine.memories
        self.x_shapes = spec.x_shapes
        ends = list(itertools.accumulate(shape[1] for shape in spec.x_shapes))
        self._parts = list(zip([0, *ends], ends, strict=False))
        # With channels last several of 16 bits are copied as one number.
        self._at_once = math.gcd(_MOST_AT_ONCE, *ends)
        first = spec.x_shapes[0]
        self.y_shape = (first[0], ends[-1], *first[2:])

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        pairs = zip(xs, self.x_shapes, strict=True)
        num_last = sum(isinstance(self.memories.of(x.data_tensor, shape), ChannelsLast) for x, shape in pairs)
        memory = self.memories.best(self.y_shape, 2 * num_last > len(xs))
        is_last, y_data = isinstance(memory, ChannelsLast), y.write_data(memory)
        for x, shape, part in zip(xs, self.x_shapes, self._parts, strict=True):
            x_data = x.read_data(self.memories.best(shape, is_last))
            self._cut(y_data, part, is_last)[...] = self._words(x_data, is_last)

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Cut y.diff into the diff of each wanted x."""
        memory = self.memories.of(y.diff_tensor, self.y_shape)
        is_last, y_diff = isinstance(memory, ChannelsLast), y.read_diff(memory)
        for x, shape, part, is_wanted in zip(xs, self.x_shapes, self._parts, wanted, strict=True):
            if is_wanted:
                x_diff = x.write_diff(self.memories.best(shape, is_last))
                self._words(x_diff, is_last)[...] = self._cut(y_diff, part, is_last)

    def _cut(self, values: Any, part: tuple[int, int], is_last: bool) -> Any:
        """Return what lies in y's array between two channels."""
        start, end = part
        if is_last:
            return self._words(values, True)[..., start // self._at_once : end // self._at_once]
        return values[:, start:end]

    def _words(self, values: Any, is_last: bool) -> Any:
        return values.view(f"uint{16 * self._at_once}") if is_last else values
