"""Exp: base^(shift + scale·x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer
from dtrain.core.layers.parts.log_base import log_of_base


@LAYERS.register("Exp")
class Exp(ElementwiseLayer):
    """Bottom and top: any shape. base −1 stands for e. Follows caffe's exp_layer.cpp."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Write the power as exp(shift + scale·x). Raises UserError for a base that can't be."""
        param = self.param.exp_param
        log_base = log_of_base(param.base, "exp_param.base")
        self.scale, self.shift = log_base * param.scale, log_base * param.shift

    def value(self, x: Any, y: Any) -> None:
        """Compute the power."""
        self.xp.multiply(x, self.scale, out=y)
        y += self.shift
        self.xp.exp(y, out=y)

    def slope(self, x: Any) -> Any:
        """Return log(base)·scale·y."""
        power = x * self.scale
        power += self.shift
        self.xp.exp(power, out=power)
        power *= self.scale
        return power
