"""ELU: x where positive, else alpha·(exp(x) − 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer


@LAYERS.register("ELU")
class ELU(ElementwiseLayer):
    """Bottom and top: any shape. The gradient at 0 is alpha. Follows caffe's elu_layer.cpp."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read alpha."""
        self.alpha = self.param.elu_param.alpha

    def value(self, x: Any, y: Any) -> None:
        """Compute max(x, 0) + alpha·(exp(min(x, 0)) − 1)."""
        self.xp.minimum(x, 0, out=y)
        self.xp.expm1(y, out=y)
        y *= self.alpha
        y += self.xp.maximum(x, 0)

    def slope(self, x: Any) -> Any:
        """Return 1 where x is positive, else alpha·exp(x)."""
        slope = self.xp.exp(self.xp.minimum(x, 0))
        if self.alpha != 1:
            slope *= self.alpha
            slope += (x > 0) * x.dtype.type(1 - self.alpha)  # several times as fast as xp.where
        return slope
