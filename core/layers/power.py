"""Power: (shift + scale·x)^power."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer


@LAYERS.register("Power")
class Power(ElementwiseLayer):
    """Bottom and top: any shape. A negative base of a broken power is NaN.

    With power 0 the top is 1 everywhere, with scale 0 it is shift^power; no gradient flows then. Follows
    caffe's power_layer.cpp, but the gradient where shift + scale·x is 0, which Caffe gives as NaN, is right.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the fields. Raises UserError if the top is a constant that is no number."""
        param = self.param.power_param
        self.power, self.scale, self.shift = param.power, param.scale, param.shift
        self.constant = _power(self.shift, self.power) if self.power * self.scale == 0 else None

    def value(self, x: Any, y: Any) -> None:
        """Compute the power."""
        if self.constant is not None:
            y.fill(self.constant)
            return
        self.xp.multiply(x, self.scale, out=y)
        y += self.shift
        if self.power != 1:
            y **= self.power

    def slope(self, x: Any) -> Any:
        """Return power·scale·(shift + scale·x)^(power − 1)."""
        if self.constant is not None or self.power == 1:
            return self.power * self.scale
        base = x * self.scale
        base += self.shift
        base **= self.power - 1
        base *= self.power * self.scale
        return base


def _power(base: float, exponent: float) -> float:
    """Return base^exponent, 1 for exponent 0; raise UserError if it is no finite number."""
    try:
        return math.pow(base, exponent)
    except (ValueError, OverflowError):
        raise UserError(
            f"power_param: shift^power must be a number with scale 0, got shift {base:g} and power {exponent:g}"
        ) from None
