"""GELU: x·Φ(x), Φ being the distribution function of the normal distribution; exact, not by tanh."""

from __future__ import annotations

import math
from typing import Any

from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer
from dtrain.core.layers.parts.normal_cdf import normal_cdf


@LAYERS.register("GELU")
class GELU(ElementwiseLayer):
    """Bottom and top: any shape. y = x·½·(1 + erf(x/√2)). An extension.

    Source: Hendrycks and Gimpel, Gaussian error linear units, 2016.
    """

    def value(self, x: Any, y: Any) -> None:
        """Compute y."""
        self.xp.multiply(x, normal_cdf(self.xp, x), out=y)

    def slope(self, x: Any) -> Any:
        """Return Φ(x) + x·φ(x), φ being the density exp(−x²/2)/√(2π)."""
        slope = -0.5 * x
        slope *= x
        self.xp.exp(slope, out=slope)
        slope *= x
        slope *= 1 / math.sqrt(2 * math.pi)
        slope += normal_cdf(self.xp, x)
        return slope
