"""ReLU: max(x, 0) + negative_slope · min(x, 0)."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ActivationSpec
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.unary import UnaryLayer

SIGN_KEEPING = frozenset({"Dropout", "ReLU"})  # what they make 0 gets no gradient from them either


@LAYERS.register("ReLU")
class ReLU(UnaryLayer):
    """Bottom and top: any shape. The gradient at 0 is negative_slope. Follows caffe's relu_layer.cpp.

    The gradient tells the two sides apart by the sign of x, in place by that of y. With a negative negative_slope, or
    where a layer behind changes signs in place, these differ, Caffe is silently wrong, and here x is kept.
    """

    needs_top = False

    @property
    def is_plain(self) -> bool:
        """Whether it is max(x, 0), and y will still tell where in backward."""
        slope = self.param.relu_param.negative_slope
        return not slope and SIGN_KEEPING.issuperset(self.overwritten_by)

    def spec(self, shape: tuple[int, ...]) -> ActivationSpec:
        """Return the engine's relu."""
        return ActivationSpec(shape, "relu", self.param.relu_param.negative_slope)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape."""
        super().reshape(bottom, top)
        changes_sign = self.param.relu_param.negative_slope < 0 or not SIGN_KEEPING.issuperset(
            self.overwritten_by
        )
        self.keeps_x = top[0] is bottom[0] and changes_sign
        self.x = Blob(bottom[0].shape, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the function."""
        if self.keeps_x:
            self.x.write_data(self.memory)[...] = bottom[0].read_data(self.memory)
        super().forward(bottom, top)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottom's gradient."""
        if self.keeps_x:
            self.x.share_diff(bottom[0])
            bottom = [self.x]
        super().backward(top, propagate_down, bottom)
