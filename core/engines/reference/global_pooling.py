"""The reference engine's pooling of whole planes: one reduction, where windows would take a pass per place."""

from __future__ import annotations

import math
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import PoolingSpec


def is_global(spec: PoolingSpec) -> bool:
    """Return whether there is one window, which is the whole plane."""
    plane = spec.x_shape[2:]
    return spec.kernel == plane and not any(spec.pad) and math.prod(spec.y_shape[2:]) == 1


class GlobalMaxPooling:
    """Take each plane's largest value, the first of equals; a NaN wins and stays visible."""

    def __init__(self, spec: PoolingSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.planes = _planes(spec)
        self._winner: Any = None  # the place h·W + w that won in each plane, (planes, 1)

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data, and the places of the winners into mask.data if given."""
        x_data = x.read_data(self.memory).reshape(self.planes)
        self._winner = x_data.argmax(axis=1)[:, None]
        y_data = y.write_data(self.memory).reshape(-1, 1)
        y_data[...] = self.xp.take_along_axis(x_data, self._winner, axis=1)
        if mask is not None:
            mask.write_data(self.memory).reshape(-1, 1)[...] = self._winner

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff: y.diff at the winners of the last forward."""
        x_diff = x.write_diff(self.memory).reshape(self.planes)
        x_diff.fill(0)
        y_diff = y.read_diff(self.memory).reshape(-1, 1)
        self.xp.put_along_axis(x_diff, self._winner, y_diff, axis=1)


class GlobalAveragePooling:
    """Take each plane's mean."""

    def __init__(self, spec: PoolingSpec, engine: Engine) -> None:
        self.memory = engine.memory
        self.planes = _planes(spec)

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data; there is no mask."""
        assert mask is None, "average pooling has no mask"
        y_data = y.write_data(self.memory).reshape(-1)
        x.read_data(self.memory).reshape(self.planes).mean(axis=1, out=y_data)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff: each plane's y.diff, shared out evenly."""
        share = y.read_diff(self.memory).reshape(-1, 1) / self.planes[1]
        x.write_diff(self.memory).reshape(self.planes)[...] = share


def _planes(spec: PoolingSpec) -> tuple[int, int]:
    return math.prod(spec.x_shape[:2]), math.prod(spec.x_shape[2:])
