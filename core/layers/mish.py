"""Mish: x·tanh(log(1 + exp(x)))."""

from __future__ import annotations

from typing import Any

from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer

SATURATED = 40.0  # tanh(log(1 + exp(x))) is 1 from far below; exp(2·40) is finite in float32


@LAYERS.register("Mish")
class Mish(ElementwiseLayer):
    """Bottom and top: any shape. With e = exp(x) and n = e·(e + 2) it is y = x·n/(n + 2). An extension.

    Source: Misra, Mish: a self regularized non-monotonic activation function, 2019.
    """

    def value(self, x: Any, y: Any) -> None:
        """Compute y."""
        power = self._power(x)
        self.xp.add(power, 2, out=y)
        y *= power
        y /= y + 2
        y *= x

    def slope(self, x: Any) -> Any:
        """Return w + x·4·e·(e + 1)/(n + 2)² with w = n/(n + 2)."""
        power = self._power(x)
        numerator = power * (power + 2)
        denominator = numerator + 2
        slope = (4 * x) * (power / denominator)
        slope *= (power + 1) / denominator  # two quotients, as the square of n + 2 overflows float32
        numerator /= denominator
        slope += numerator
        return slope

    def _power(self, x: Any) -> Any:
        return self.xp.exp(self.xp.minimum(x, SATURATED))
