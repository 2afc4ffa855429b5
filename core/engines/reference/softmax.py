"""The reference engine's softmax."""

from __future__ import annotations

import math
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import SoftmaxSpec


class Softmax:
    """Carry out a SoftmaxSpec on x seen as (outer, classes, inner). y may be x itself."""

    def __init__(self, spec: SoftmaxSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        outer, inner = spec.x_shape[: spec.axis], spec.x_shape[spec.axis + 1 :]
        self.shape = (math.prod(outer), spec.x_shape[spec.axis], math.prod(inner))

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y = exp(x − max x) / Σ exp(x − max x)."""
        x_data = self._split(x.read_data(self.memory))
        y_data = self._split(y.write_data(self.memory))
        if not x_data.size:  # no class has no maximum
            return
        self.xp.subtract(x_data, x_data.max(axis=1, keepdims=True), out=y_data)
        self.xp.exp(y_data, out=y_data)
        y_data /= y_data.sum(axis=1, keepdims=True)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = y·(dy − Σ dy·y)."""
        y_data = self._split(y.read_data(self.memory))
        y_diff = self._split(y.read_diff(self.memory))
        x_diff = self._split(x.write_diff(self.memory))
        self.xp.subtract(y_diff, (y_diff * y_data).sum(axis=1, keepdims=True), out=x_diff)
        x_diff *= y_data

    def _split(self, array: Any) -> Any:
        return array.reshape(self.shape)
