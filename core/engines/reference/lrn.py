"""The reference engine's local response normalisation, across channels or within each."""

from __future__ import annotations

from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import LRNSpec


class LRN:
    """Carry out an LRNSpec: y = x·s^−beta with s = k + alpha/n^d·S(x²).

    S sums over n neighbours along each of d axes: the channels, or height and width (there k is 1). Zero
    padding makes S its own transpose: dx = dy·s^−beta − 2·alpha/n^d·beta·x·S(dy·x·s^(−beta−1)).
    """

    def __init__(self, spec: LRNSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.reach = spec.local_size // 2
        self.axes = (2, 3) if spec.within_channel else (1,)
        self.alpha = spec.alpha / spec.local_size ** len(self.axes)
        self.beta = spec.beta
        self.k = 1.0 if spec.within_channel else spec.k
        self._scale: Any = None

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        x_data = x.read_data(self.memory)
        scale = self._neighbours(x_data * x_data)
        scale *= self.alpha
        scale += self.k
        self.xp.multiply(x_data, scale**-self.beta, out=y.write_data(self.memory))
        self._scale = scale

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff."""
        x_data = x.read_data(self.memory)
        direct = y.read_diff(self.memory) * self._scale**-self.beta
        indirect = self._neighbours(direct * x_data / self._scale)
        indirect *= x_data
        indirect *= 2 * self.alpha * self.beta
        self.xp.subtract(direct, indirect, out=x.write_diff(self.memory))

    def _neighbours(self, values: Any) -> Any:
        """Return S(values)."""
        for axis in self.axes:
            total = values.copy()
            before, after = self.xp.moveaxis(total, axis, 0), self.xp.moveaxis(values, axis, 0)
            for distance in range(1, min(self.reach, len(after) - 1) + 1):
                before[distance:] += after[:-distance]
                before[:-distance] += after[distance:]
            values = total
        return values
