"""AbsVal: |x|."""

from __future__ import annotations

from typing import Any

from dtrain.core.layers.layer import LAYERS, InPlace
from dtrain.core.layers.parts.elementwise import ElementwiseLayer


@LAYERS.register("AbsVal")
class AbsVal(ElementwiseLayer):
    """Bottom and top: any shape; the gradient at 0 is 0. Follows caffe's absval_layer.cpp."""

    in_place = InPlace.NO  # as in Caffe

    def value(self, x: Any, y: Any) -> None:
        """Compute |x|."""
        self.xp.abs(x, out=y)

    def slope(self, x: Any) -> Any:
        """Return the sign of x."""
        return self.xp.sign(x)
