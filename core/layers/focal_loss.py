"""FocalLoss: a SoftmaxWithLoss in which places that are right already count little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.softmax_loss import SMALLEST, SoftmaxLossLayer
from dtrain.proto import caffe_pb2


@LAYERS.register("FocalLoss")
class FocalLoss(SoftmaxLossLayer):
    """A place costs −(α − p)^γ·log(max(p, FLT_MIN)), p being the probability of its label.

    Bottoms, tops, loss_param and weights: see softmax_loss.py. focal_loss_param: alpha (1), the base and no weight of
    a class; gamma (2); type: ORIGIN, LINEAR (the same) or ONEADDP, which has α + p; beta is not read. Follows the
    layer of this name in a fork of Caffe, but its gradient is exact, where the fork's holds for alpha 1 only.
    """

    messages = ("focal_loss_param", "softmax_param", "loss_param")

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the params. Raises UserError for a power that does not exist, or for label_smoothing."""
        param = self.param.focal_loss_param
        self.alpha, self.gamma = param.alpha, param.gamma
        self.sign = 1 if param.type == caffe_pb2.FocalLossParameter.ONEADDP else -1
        if self.alpha <= 0 or self.gamma < 0:
            raise UserError(
                "focal_loss_param must have alpha greater than 0 and gamma at least 0, "
                f"got {self.alpha:g} and {self.gamma:g}"
            )
        if self.sign < 0 and self.alpha < 1 and self.gamma % 1:
            raise UserError(
                f"focal_loss_param.alpha must be at least 1 if gamma is no whole number ({self.gamma:g}), since "
                f"alpha - p would have no such power below 0, got {self.alpha:g}"
            )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        p = self.read(bottom)[self.labels.index]
        self.write_sum(top, -(self._base(p) ** self.gamma) * self._log(p))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scores' gradient: G·(p_c − [c = label]) times weight·loss_weight / normalizer.

        With b = α ∓ p, p of the label: G = b^γ ∓ γ·b^(γ − 1)·p·log p.
        """
        if not propagate_down[0]:
            return
        gradient = self.labels.spread(bottom[0].write_diff(self.memory))
        gradient[...] = self.p
        p = gradient[self.labels.index]
        gradient[self.labels.index] -= 1
        base = self._base(p)
        slope_base = self.xp.where(base == 0, SMALLEST, base)  # 0^(γ − 1)·log 1 is 0
        slope = self.gamma * slope_base ** (self.gamma - 1) * p * self._log(p)
        self.weigh_gradient(top, gradient, base**self.gamma + self.sign * slope)

    def _base(self, p: Any) -> Any:
        return self.alpha + self.sign * p

    def _log(self, p: Any) -> Any:
        return self.xp.log(self.xp.maximum(p, SMALLEST))
