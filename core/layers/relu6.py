"""ReLU6: a ReLU that ends at 6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer

MOST = 6.0


@LAYERS.register("ReLU6")
class ReLU6(ElementwiseLayer):
    """Bottom and top: any shape. y = min(max(x, 0) + negative_slope·min(x, 0), 6).

    The gradient is negative_slope at 0 and 0 from 6 on. An extension: MobileNet-YOLO's fork of Caffe has it.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read negative_slope."""
        self.negative_slope = self.param.relu6_param.negative_slope

    def value(self, x: Any, y: Any) -> None:
        """Compute y."""
        self.xp.minimum(self._unlimited(x), MOST, out=y)

    def slope(self, x: Any) -> Any:
        """Return 1 where x is positive, else negative_slope; 0 where y is 6."""
        if self.negative_slope == 0:
            return (x > 0) & (x < MOST)
        slope = (x > 0) * x.dtype.type(1 - self.negative_slope)
        slope += self.negative_slope
        slope *= self._unlimited(x) < MOST
        return slope

    def _unlimited(self, x: Any) -> Any:
        result = self.xp.maximum(x, 0)
        if self.negative_slope != 0:
            result += self.negative_slope * self.xp.minimum(x, 0)
        return result
