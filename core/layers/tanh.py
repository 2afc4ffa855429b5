"""TanH: (exp(x) − exp(−x)) / (exp(x) + exp(−x))."""

from __future__ import annotations

from dtrain.core.engines.operations import ActivationSpec
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.unary import UnaryLayer


@LAYERS.register("TanH")
class TanH(UnaryLayer):
    """Bottom and top: any shape. Follows caffe's tanh_layer.cpp."""

    def spec(self, shape: tuple[int, ...]) -> ActivationSpec:
        """Return the engine's tanh."""
        return ActivationSpec(shape, "tanh")
