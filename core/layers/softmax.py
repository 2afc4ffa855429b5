"""Softmax: exp(x) / Σ exp(x) along one axis."""

from __future__ import annotations

from dtrain.core.engines.operations import SoftmaxSpec
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.unary import UnaryLayer


@LAYERS.register("Softmax")
class Softmax(UnaryLayer):
    """Bottom: scores, any shape. Top: the same shape, sums to 1 along softmax_param.axis (1 by default).

    The largest score is subtracted first, so that nothing overflows. Follows caffe's softmax_layer.cpp.
    """

    def spec(self, shape: tuple[int, ...]) -> SoftmaxSpec:
        """Return the engine's softmax. Raises UserError if there is no such axis."""
        return SoftmaxSpec(
            shape, self.canonical_axis(self.param.softmax_param.axis, len(shape), "softmax_param.axis")
        )
