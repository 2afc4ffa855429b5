"""Log: the logarithm of shift + scale·x to a base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer
from dtrain.core.layers.parts.log_base import log_of_base


@LAYERS.register("Log")
class Log(ElementwiseLayer):
    """Bottom and top: any shape. base −1 stands for e. Follows caffe's log_layer.cpp."""

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the fields. Raises UserError for a base that can't be, 1 among them."""
        param = self.param.log_param
        self.log_base = log_of_base(param.base, "log_param.base")
        if self.log_base == 0:
            raise UserError("log_param.base must not be 1: there is no logarithm to that base")
        self.scale, self.shift = param.scale, param.shift

    def value(self, x: Any, y: Any) -> None:
        """Compute the logarithm."""
        self.xp.multiply(x, self.scale, out=y)
        y += self.shift
        self.xp.log(y, out=y)
        y /= self.log_base

    def slope(self, x: Any) -> Any:
        """Return scale / (log(base)·(shift + scale·x))."""
        argument = x * self.scale
        argument += self.shift
        self.xp.divide(self.scale / self.log_base, argument, out=argument)
        return argument
