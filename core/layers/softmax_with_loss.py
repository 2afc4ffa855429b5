"""SoftmaxWithLoss: the multinomial logistic loss of the softmax of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.softmax_loss import SMALLEST, SoftmaxLossLayer


@LAYERS.register("SoftmaxWithLoss")
class SoftmaxWithLoss(SoftmaxLossLayer):
    """A place costs −Σ_c q_c·log(max(p_c, FLT_MIN)), where q is 1 at its label and 0 elsewhere.

    Bottoms, tops, loss_param and weights: see softmax_loss.py. Follows caffe's softmax_loss_layer.cpp.
    Extension `dtrain_param.label_smoothing` ε, from 0 to below 1: q = (1 − ε)·[c = label] + ε / C, in the loss and
    in its gradient.
    """

    extensions = ("class_weight", "label_smoothing")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        p = self.read(bottom)
        smoothing = self.param.dtrain_param.label_smoothing
        logs = self._log(p[self.labels.index])
        if smoothing:
            logs = (1 - smoothing) * logs + smoothing * self._log(p).mean(axis=1)
        self.write_sum(top, -logs)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scores' gradient, p − q times weight·loss_weight / normalizer, 0 where ignored."""
        if not propagate_down[0]:
            return
        smoothing = self.param.dtrain_param.label_smoothing
        gradient = self.labels.spread(bottom[0].write_diff(self.memory))
        self.xp.subtract(self.p, smoothing / max(1, self.labels.num_classes), out=gradient)
        gradient[self.labels.index] -= 1 - smoothing
        self.weigh_gradient(top, gradient)

    def _log(self, p: Any) -> Any:
        return self.xp.log(self.xp.maximum(p, SMALLEST))
