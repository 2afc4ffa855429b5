"""BNLL: log(1 + exp(x)), a smooth ReLU."""

from __future__ import annotations

from typing import Any

from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer

SATURATED = 50.0  # exp(50) + 1 is exp(50) in float64 too


@LAYERS.register("BNLL")
class BNLL(ElementwiseLayer):
    """Bottom and top: any shape. y = max(x, 0) + log(1 + exp(−|x|)). Follows caffe's bnll_layer.cpp."""

    def value(self, x: Any, y: Any) -> None:
        """Compute y, without overflow."""
        self.xp.abs(x, out=y)
        self.xp.negative(y, out=y)
        self.xp.exp(y, out=y)
        self.xp.log1p(y, out=y)
        y += self.xp.maximum(x, 0)

    def slope(self, x: Any) -> Any:
        """Return exp(x) / (exp(x) + 1)."""
        power = self.xp.exp(self.xp.minimum(x, SATURATED))
        power /= power + 1
        return power
