"""HardSwish: x·ReLU6(x + 3)/6, Swish made of straight lines."""

from __future__ import annotations

from typing import Any

from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer


@LAYERS.register("HardSwish")
class HardSwish(ElementwiseLayer):
    """Bottom and top: any shape. The gradient is 0 at −3 and 1 at 3, as beyond. An extension.

    Source: Howard et al., Searching for MobileNetV3, 2019.
    """

    def value(self, x: Any, y: Any) -> None:
        """Compute y."""
        self._gate(x, y)
        y *= x

    def slope(self, x: Any) -> Any:
        """Return (2·x + 3)/6 between −3 and 3, 0 below and 1 above."""
        slope = self.xp.empty_like(x)
        self._gate(x, slope)
        slope += (x / 6) * (self.xp.abs(x) < 3)
        return slope

    def _gate(self, x: Any, out: Any) -> None:
        """Compute ReLU6(x + 3)/6."""
        self.xp.add(x, 3, out=out)
        self.xp.clip(out, 0, 6, out=out)
        out /= 6
