"""ReLU: max(x, 0) + negative_slope · min(x, 0)."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ActivationSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.unary import UnaryLayer


@LAYERS.register("ReLU")
class ReLU(UnaryLayer):
    """Bottom and top: any shape. The gradient at 0 is negative_slope. Follows caffe's relu_layer.cpp."""

    def spec(self, shape: tuple[int, ...]) -> ActivationSpec:
        """Return the engine's relu."""
        return ActivationSpec(shape, "relu", self.param.relu_param.negative_slope)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError in place with a negative negative_slope."""
        slope = self.param.relu_param.negative_slope
        if slope < 0 and top[0] is bottom[0]:
            # The gradient tells the two sides apart by the sign of what is left in place.
            raise UserError(f"relu_param.negative_slope must be 0 or more in place, got {slope:g}")
        super().reshape(bottom, top)
