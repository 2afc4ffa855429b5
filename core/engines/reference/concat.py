"""The reference engine's concatenation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import ConcatSpec


class Concat:
    """Carry out a ConcatSpec: copies to and from y's parts."""

    def __init__(self, spec: ConcatSpec, engine: Engine) -> None:
        self.memory = engine.memory
        self.axis = spec.axis
        self.lengths = [shape[spec.axis] for shape in spec.x_shapes]

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        for x, part in zip(xs, self._parts(y.write_data(self.memory)), strict=True):
            part[...] = x.read_data(self.memory)

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute the diff of each wanted x."""
        for x, part, is_wanted in zip(xs, self._parts(y.read_diff(self.memory)), wanted, strict=True):
            if is_wanted:
                x.write_diff(self.memory)[...] = part

    def _parts(self, y: Any) -> Iterator[Any]:
        start = 0
        for length in self.lengths:
            yield y[(slice(None),) * self.axis + (slice(start, start + length),)]
            start += length
