"""SigmoidCrossEntropyLoss: each score is a yes-or-no question of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.loss import LossLayer, loss_weight, normalization_of, normalizer
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.proto import caffe_pb2


@LAYERS.register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(LossLayer):
    """loss = −Σ (t·log p + (1 − t)·log(1 − p)) / normalizer, p = 1 / (1 + e^−x), in a form that doesn't overflow.

    Bottom 0: scores x (N, …). Bottom 1: targets t, as many, 0 to 1, which get no gradient. Top: the loss.
    loss_param: normalization, see loss.py (here BATCH_SIZE by default; VALID counts targets); ignore_label: targets
    whose integer part it is don't count, so ignore_label: 0 also ignores 0.5. Follows caffe's
    sigmoid_cross_entropy_loss_layer.cpp.
    """

    messages = ("sigmoid_param", "loss_param")
    no_gradient_bottoms = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError unless there is one target per score."""
        super().reshape(bottom, top)
        if bottom[0].count != bottom[1].count:
            raise UserError(
                f"there must be one target per score, got {bottom[0].shape} from {name_bottom(self, 0)} "
                f"and {bottom[1].shape} from {name_bottom(self, 1)}"
            )

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss."""
        xp, x, target = self.xp, bottom[0].read_data(self.memory), self._target(bottom)
        losses = xp.maximum(x, 0) - x * target + xp.log1p(xp.exp(-xp.abs(x)))
        self.ignored = self._find_ignored(target)
        num_valid = x.size
        if self.ignored is not None:
            losses = xp.where(self.ignored, 0, losses)
            num_valid = (~self.ignored).sum()
        mode = normalization_of(self.param.loss_param, caffe_pb2.LossParameter.BATCH_SIZE)
        num_outer = x.shape[0]
        self.normalizer = normalizer(mode, num_outer, x.size // max(1, num_outer), num_valid)
        self.write_loss(top, losses.sum() / self.normalizer)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scores' gradient (p − t)·loss_weight / normalizer, 0 where ignored."""
        if not propagate_down[0]:
            return
        diff = bottom[0].write_diff(self.memory)
        self.xp.multiply(bottom[0].read_data(self.memory), 0.5, out=diff)
        self.xp.tanh(diff, out=diff)  # p = (1 + tanh(x / 2)) / 2
        diff += 1
        diff *= 0.5
        diff -= self._target(bottom)
        diff *= loss_weight(top, self.memory) / self.normalizer
        if self.ignored is not None:
            self.xp.copyto(diff, 0, where=self.ignored)

    def _target(self, bottom: Sequence[Blob]) -> Any:
        return bottom[1].read_data(self.memory).reshape(bottom[0].shape)

    def _find_ignored(self, target: Any) -> Any | None:
        """Return where targets are ignored, or None if none can be."""
        param = self.param.loss_param
        return self.xp.trunc(target) == param.ignore_label if param.HasField("ignore_label") else None
