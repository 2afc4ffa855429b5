"""SmoothL1Loss: quadratic for small errors, linear for large ones; what detectors regress boxes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.loss import LossLayer, loss_weight
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("SmoothL1Loss")
class SmoothL1Loss(LossLayer):
    """loss = Σ w_out·s(w_in·(prediction − target)) / N, s(d) = ½(σd)² for |d| < 1/σ², else |d| − ½/σ².

    Bottoms: prediction, target and perhaps, both or neither, inside and outside weights, all of one shape; N is their
    first axis. The first two get gradients; the weights are constants, their gradient is 0. Top: the loss, which
    counts only if the prototxt gives it a loss_weight. smooth_l1_loss_param: sigma (1). Follows the layer of this
    name in py-faster-rcnn's fork of Caffe; an empty batch costs 0, not NaN.
    """

    bottoms = Arity(2, 4)
    is_loss = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the bottoms' number and sigma. Raises UserError."""
        if len(bottom) == 3:
            raise UserError(
                "needs 2 bottoms (prediction, target) or 4 (inside and outside weights too), got 3"
            )
        sigma = self.param.smooth_l1_loss_param.sigma
        if sigma <= 0:
            raise UserError(f"smooth_l1_loss_param.sigma must be greater than 0, got {sigma:g}")
        self.curvature = sigma * sigma

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError unless all shapes agree, but for axes of 1 at their ends."""
        super().reshape(bottom, top)
        for i, blob in enumerate(bottom):
            if _core_of(blob.shape) != _core_of(bottom[0].shape):
                raise UserError(
                    f"all bottoms must have one shape, got {bottom[0].shape} from {name_bottom(self, 0)} "
                    f"and {blob.shape} from {name_bottom(self, i)}"
                )
        self.difference = Blob(bottom[0].shape, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss."""
        xp = self.xp
        prediction, target, *weights = self._read(bottom)
        difference = self.difference.write_data(self.memory)
        xp.subtract(prediction, target, out=difference)
        if weights:
            difference *= weights[0]
        size = xp.abs(difference)
        is_small = size < 1 / self.curvature
        losses = xp.where(is_small, 0.5 * self.curvature * size * size, size - 0.5 / self.curvature)
        if weights:
            losses *= weights[1]
        self.write_loss(top, losses.sum() / self.num_items(bottom))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute ±s'(d)·w_in·w_out·loss_weight / N, s'(d) = σ²·d for |d| < 1/σ², else its sign."""
        slopes = self.difference.read_data(self.memory) * self.curvature
        self.xp.clip(slopes, -1, 1, out=slopes)
        for weight in self._read(bottom)[2:]:
            slopes *= weight
        scale = loss_weight(top, self.memory) / self.num_items(bottom)
        for blob, wanted, sign in zip(bottom, propagate_down, (1, -1, 0, 0), strict=False):
            if wanted:
                diff = blob.write_diff(self.memory)
                self.xp.multiply(slopes.reshape(diff.shape), sign * scale, out=diff)

    def _read(self, bottom: Sequence[Blob]) -> list[Any]:
        return [blob.read_data(self.memory).reshape(bottom[0].shape) for blob in bottom]


def _core_of(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without the axes of 1 at its end."""
    length = max((i + 1 for i, size in enumerate(shape) if size != 1), default=0)
    return shape[:length]
