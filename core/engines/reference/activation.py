"""The reference engine's activations: elementwise functions whose gradient needs x or y only."""

from __future__ import annotations

from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import ActivationSpec


class Activation:
    """Carry out an ActivationSpec. In place, x is y and holds y's values when backward comes."""

    def __init__(self, spec: ActivationSpec, engine: Engine) -> None:
        self.xp = engine.xp
        self.memory = engine.memory
        self.negative_slope = spec.negative_slope
        self.apply, self.differentiate = {
            "relu": (self._relu, self._relu_gradient),
            "sigmoid": (self._sigmoid, self._sigmoid_gradient),
            "tanh": (self._tanh, self._tanh_gradient),
        }[spec.function]

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        x_data = x.read_data(self.memory)
        self.apply(x_data, y.write_data(self.memory))

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff = y.diff · f′, f′ from x for relu and from y for the others."""
        y_diff = y.read_diff(self.memory)
        gradient = self.differentiate(x.read_data(self.memory), y.read_data(self.memory))
        self.xp.multiply(y_diff, gradient, out=x.write_diff(self.memory))

    def _relu(self, x: Any, y: Any) -> None:
        if self.negative_slope == 0:
            self.xp.maximum(x, 0, out=y)
        else:
            below = self.xp.minimum(x, 0)
            below *= self.negative_slope
            self.xp.maximum(x, 0, out=y)
            y += below

    def _relu_gradient(self, x: Any, y: Any) -> Any:
        positive = x > 0  # in place this is y > 0: the same as long as negative_slope is not negative
        if self.negative_slope == 0:
            return positive
        slope = positive * x.dtype.type(1 - self.negative_slope)  # several times as fast as xp.where
        slope += x.dtype.type(self.negative_slope)
        return slope

    def _sigmoid(self, x: Any, y: Any) -> None:
        self.xp.multiply(x, 0.5, out=y)
        self.xp.tanh(y, out=y)
        y *= 0.5
        y += 0.5

    def _sigmoid_gradient(self, x: Any, y: Any) -> Any:
        return y * (1 - y)

    def _tanh(self, x: Any, y: Any) -> None:
        self.xp.tanh(x, out=y)

    def _tanh_gradient(self, x: Any, y: Any) -> Any:
        return 1 - y * y
