"""STOCHASTIC pooling: in training a unit of each window is sampled, in tests the units are averaged.

Both weigh a unit by its activation, which must not be negative. They are written on the engine's array module, so
that they are the same on every engine. Follows the GPU code of caffe's pooling_layer.cu; Caffe has none for the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.windows import Windows
from dtrain.core.errors import ItemError


class SampledPooling:
    """TRAIN: y = the first unit at which the window's running sum reaches u·Σx, u uniform in (0, 1].

    So a unit is taken with probability x/Σx, and the first one where all are 0. NaN where a unit is NaN.
    """

    def __init__(self, windows: Windows, engine: Engine, draw: Callable[[], np.random.Generator]) -> None:
        self.windows = windows
        self.xp = engine.xp
        self.memory = engine.memory
        self._draw = draw
        self._winner: Any = None  # for each window the index of the tap that was sampled

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Sample. Raises UserError for a negative unit: there is no such probability."""
        assert mask is None, "stochastic pooling has no mask"
        x_data = x.read_data(self.memory)
        self._check(x_data)
        y_data = y.write_data(self.memory)
        threshold = self._sums(x_data, y_data) * self._random(y_data)
        num_taps = len(self.windows.taps)
        self._winner = self.xp.full(y_data.shape, num_taps, np.min_scalar_type(num_taps))
        running = self.xp.zeros_like(y_data)
        y_data.fill(np.nan)
        for index, values in enumerate(self.windows.seen(x_data, 0)):
            running += values
            is_reached = (running >= threshold) & (self._winner == num_taps)
            self.xp.copyto(y_data, values, where=is_reached)
            self.xp.copyto(self._winner, self._winner.dtype.type(index), where=is_reached)

    def backward(self, x: Blob, y: Blob) -> None:
        """Give each window's gradient to the unit that was sampled."""
        y_diff = y.read_diff(self.memory)
        self.windows.scatter(x.write_diff(self.memory), lambda index: y_diff * (self._winner == index))

    def _check(self, x_data: Any) -> None:
        is_negative = x_data < 0
        if is_negative.any():
            place = int(is_negative.argmax())
            raise ItemError(
                "pooling_param.pool: STOCHASTIC must have a bottom of at least 0, such as a ReLU's top, got "
                f"{float(x_data.reshape(-1)[place]):g}",
                item=place * len(x_data) // x_data.size,
            )

    def _sums(self, x_data: Any, y_data: Any) -> Any:
        sums = self.xp.zeros_like(y_data)
        for values in self.windows.seen(x_data, 0):
            sums += values
        return sums

    def _random(self, y_data: Any) -> Any:
        """Return uniform numbers in (0, 1], drawn on the host so that they are the same on every engine."""
        numbers = 1 - self._draw().random(y_data.shape, dtype=np.float32)
        return self.xp.asarray(numbers.astype(y_data.dtype, copy=False))


class WeightedPooling:
    """TEST: y = Σx²/Σx over the window, what sampling gives on average; 0 where Σx is not positive."""

    def __init__(self, windows: Windows, engine: Engine) -> None:
        self.windows = windows
        self.xp = engine.xp
        self.memory = engine.memory
        self._mean: Any = None  # y of the last forward, which a later layer may have changed in place
        self._factor: Any = None  # 1/Σx, or 0

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data."""
        assert mask is None, "stochastic pooling has no mask"
        y_data = y.write_data(self.memory)
        sums, squares = self.xp.zeros_like(y_data), self.xp.zeros_like(y_data)
        for values in self.windows.seen(x.read_data(self.memory), 0):
            sums += values
            squares += values * values
        is_empty = sums <= 0  # False for NaN, which stays visible
        self._factor = ~is_empty / self.xp.where(is_empty, 1, sums)
        self._mean = squares * self._factor
        y_data[...] = self._mean

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff = dy·(2x − y)/Σx, which Caffe leaves undefined; 0 where y is 0 for want of a Σx."""
        share = y.read_diff(self.memory) * self._factor
        seen = self.windows.seen(x.read_data(self.memory), 0)
        self.windows.scatter(x.write_diff(self.memory), lambda index: share * (2 * next(seen) - self._mean))
