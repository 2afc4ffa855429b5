"""Clip: x limited to a range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.elementwise import ElementwiseLayer


@LAYERS.register("Clip")
class Clip(ElementwiseLayer):
    """Bottom and top: any shape. y = max(min, min(x, max)); the gradient passes where min ≤ x ≤ max.

    Follows caffe's clip_layer.cpp.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the range."""
        param = self.param.clip_param
        self.least, self.most = param.min, param.max

    def value(self, x: Any, y: Any) -> None:
        """Limit x."""
        self.xp.minimum(x, self.most, out=y)
        self.xp.maximum(y, self.least, out=y)

    def slope(self, x: Any) -> Any:
        """Return 1 within the range, its ends included, else 0."""
        return (x >= self.least) & (x <= self.most)
