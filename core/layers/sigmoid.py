"""Sigmoid: 1 / (1 + exp(−x)), computed as 0.5·tanh(0.5·x) + 0.5."""

from __future__ import annotations

from dtrain.core.engines.operations import ActivationSpec
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.unary import UnaryLayer


@LAYERS.register("Sigmoid")
class Sigmoid(UnaryLayer):
    """Bottom and top: any shape. Follows caffe's sigmoid_layer.cpp."""

    def spec(self, shape: tuple[int, ...]) -> ActivationSpec:
        """Return the engine's sigmoid."""
        return ActivationSpec(shape, "sigmoid")
