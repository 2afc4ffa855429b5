"""Batch normalisation by the statistics of the batches of all ranks together, for BatchNorm's sync_statistics.

N ranks with batches of b compute what one rank with a batch of N·b does. It takes the place of an engine's
operation, is written on the engine's arrays, and differs from the reference engine's in its means only.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import BatchNormSpec
from dtrain.dist.communicator import Communicator


class SynchronisedBatchNorm:
    """A BatchNormOperation with batch statistics over all ranks, whose batches may differ in size.

    values_per_channel: what the statistics of the last forward were taken from, on all ranks together.
    """

    def __init__(self, spec: BatchNormSpec, engine: Engine, communicator: Communicator) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.communicator = communicator
        self.eps = spec.eps
        num_channels = spec.x_shape[1] if len(spec.x_shape) > 1 else 1
        self.shape = (spec.x_shape[0], num_channels, math.prod(spec.x_shape[2:]))
        self.values_per_channel = 0

    def forward(self, x: Blob, y: Blob, mean: Blob, variance: Blob, keeps: bool = True) -> None:
        """Compute y.data, mean.data and the biased variance.data. Collective."""
        x_data = self._split(x.read_data(self.memory))
        (x_mean,) = self._means(x_data)
        normalised = x_data - x_mean
        (x_variance,) = self._means(normalised * normalised)
        mean.write_data(self.memory)[...] = x_mean.reshape(mean.shape)
        variance.write_data(self.memory)[...] = x_variance.reshape(variance.shape)
        self._deviation = self.xp.sqrt(x_variance + self.eps)
        normalised /= self._deviation
        self._split(y.write_data(self.memory))[...] = normalised
        self._normalised = normalised if keeps else None

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = (dy − E[dy] − n·E[dy·n]) / deviation, n being the normalised x. Collective."""
        gradient = self._split(y.read_diff(self.memory))
        mean, slope = self._means(gradient, gradient * self._normalised)
        gradient = gradient - mean
        gradient -= self._normalised * slope
        self.xp.divide(gradient, self._deviation, out=self._split(x.write_diff(self.memory)))

    def let_go(self) -> None:
        """Forget what forward has kept for backward."""
        self._normalised = None

    def _means(self, *values: Any) -> list[Any]:
        """Return for each array its channels' means over all ranks, shape (C, 1). Collective.

        Sums travel in float64, so that they lose nothing on any number of ranks.
        """
        sums = Blob((len(values) * self.shape[1] + 1,), np.float64)
        local = sums.write_data(self.memory)
        local[:-1] = self.xp.concatenate([array.sum(axis=(0, 2)) for array in values])
        local[-1] = self.shape[0] * self.shape[2]
        self.communicator.all_reduce(sums.data)
        self.values_per_channel = int(sums.data[-1])
        means = sums.read_data(self.memory)[:-1] / max(1, self.values_per_channel)
        return list(means.astype(values[0].dtype).reshape(len(values), -1, 1))

    def _split(self, array: Any) -> Any:
        return array.reshape(self.shape)
