"""Swish: x·sigmoid(beta·x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer


@LAYERS.register("Swish")
class Swish(ElementwiseLayer):
    """Bottom and top: any shape. With beta 1 also known as SiLU. Follows caffe's swish_layer.cpp."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read beta."""
        self.beta = self.param.swish_param.beta

    def value(self, x: Any, y: Any) -> None:
        """Compute y."""
        self._sigmoid(x, y)
        y *= x

    def slope(self, x: Any) -> Any:
        """Return s + beta·x·s·(1 − s) with s = sigmoid(beta·x)."""
        sigmoid = self.xp.empty_like(x)
        self._sigmoid(x, sigmoid)
        slope = x * self.beta
        slope *= 1 - sigmoid
        slope += 1
        slope *= sigmoid
        return slope

    def _sigmoid(self, x: Any, out: Any) -> None:
        """Compute sigmoid(beta·x) as 0.5·tanh(0.5·beta·x) + 0.5, which overflows nowhere."""
        self.xp.multiply(x, 0.5 * self.beta, out=out)
        self.xp.tanh(out, out=out)
        out *= 0.5
        out += 0.5
