"""The reference engine's batch normalisation (without learned scale and shift, as Caffe's)."""

from __future__ import annotations

import math
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import BatchNormSpec


class BatchNorm:
    """Carry out a BatchNormSpec on x seen as (N, C, rest); one axis is one channel. y may be x itself.

    The normalised values are kept here, since a layer in place after this one may overwrite y.
    """

    def __init__(self, spec: BatchNormSpec, engine: Engine) -> None:
        self.spec = spec
        self.xp = engine.xp
        self.memory = engine.memory
        num_channels = spec.x_shape[1] if len(spec.x_shape) > 1 else 1
        self.shape = (spec.x_shape[0], num_channels, math.prod(spec.x_shape[2:]))
        self.values_per_channel = max(1, self.shape[0] * self.shape[2])
        self._normalised: Any = None
        self._deviation: Any = None

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, keeps: bool = True) -> None:
        """Compute y.data, and with batch_statistics mean.data and variance.data (biased)."""
        x_data = self._split(x.read_data(self.memory))
        if self.spec.batch_statistics:
            mean.write_data(self.memory)[...] = self._mean(x_data).reshape(mean.shape)
        normalised = x_data - mean.read_data(self.memory).reshape(-1, 1)
        if self.spec.batch_statistics:
            variance.write_data(self.memory)[...] = self._mean(normalised * normalised).reshape(
                variance.shape
            )
        self._deviation = self.xp.sqrt(variance.read_data(self.memory).reshape(-1, 1) + self.spec.eps)
        normalised /= self._deviation
        self._split(y.write_data(self.memory))[...] = normalised
        self._normalised = normalised if keeps else None

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = dy / deviation, through the statistics (dy − E[dy] − ŷ·E[dy·ŷ]) / deviation."""
        gradient = self._split(y.read_diff(self.memory))
        if self.spec.batch_statistics:
            slope = self._mean(gradient * self._normalised)
            gradient = gradient - self._mean(gradient) - self._normalised * slope
        self.xp.divide(gradient, self._deviation, out=self._split(x.write_diff(self.memory)))

    def let_go(self) -> None:
        """Forget what forward has kept for backward."""
        self._normalised = None

    def _split(self, array: Any) -> Any:
        return array.reshape(self.shape)

    def _mean(self, values: Any) -> Any:
        """Return the mean of each channel, shape (C, 1); 0 for an empty batch."""
        return values.sum(axis=(0, 2)).reshape(-1, 1) / self.values_per_channel
