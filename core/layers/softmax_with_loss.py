"""SoftmaxWithLoss: the multinomial logistic loss of the softmax of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import SoftmaxLossOperation, SoftmaxLossSpec
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.loss import loss_weight, normalizer
from dtrain.core.layers.parts.softmax_loss import SMALLEST, SoftmaxLossLayer
from dtrain.proto import caffe_pb2


@LAYERS.register("SoftmaxWithLoss")
class SoftmaxWithLoss(SoftmaxLossLayer):
    """A place costs −Σ_c q_c·log(max(p_c, FLT_MIN)), where q is 1 at its label and 0 elsewhere.

    Bottoms, tops, loss_param and weights: see softmax_loss.py. Follows caffe's softmax_loss_layer.cpp.
    Extension `dtrain_param.label_smoothing` ε, from 0 to below 1: q = (1 − ε)·[c = label] + ε / C, in the loss and
    in its gradient.
    """

    extensions = ("class_weight", "label_smoothing")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError unless there is one label per place and the weights fit."""
        super().reshape(bottom, top)
        self.operation = self._create_operation(bottom)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        if self.operation is not None:
            if self.engine.looks_at_values():
                self.labels.check(bottom[1])
            self.softmax.forward(bottom[0], self.probabilities)
            self.operation.forward(self.probabilities, bottom[1], top[0])
            return
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
        if self.operation is not None:
            weight = loss_weight(top)
            self.operation.backward(self.probabilities, bottom[1], weight, bottom[0])
            return
        smoothing = self.param.dtrain_param.label_smoothing
        gradient = self.labels.spread(bottom[0].write_diff(self.memory))
        self.xp.subtract(self.p, smoothing / max(1, self.labels.num_classes), out=gradient)
        gradient[self.labels.index] -= 1 - smoothing
        self.weigh_gradient(top, gradient)

    def _create_operation(self, bottom: Sequence[Blob]) -> SoftmaxLossOperation | None:
        """Return what does all at once, if the engine has it and places have no weights."""
        labels, dtrain = self.labels, self.param.dtrain_param
        if dtrain.class_weight or self.weight_blob(bottom) is not None:
            return None
        shape = bottom[0].shape
        num_valid = 0 if labels.ignore_label is not None else labels.num_outer * labels.num_inner
        counts_places = self.normalization == caffe_pb2.LossParameter.VALID and not num_valid
        divisor = normalizer(self.normalization, labels.num_outer, labels.num_inner, num_valid)
        spec = SoftmaxLossSpec(
            shape,
            self.class_axis(len(shape)),
            labels.ignore_label,
            0.0 if counts_places else divisor,
            dtrain.label_smoothing,
            SMALLEST,
        )
        try:
            operation: SoftmaxLossOperation = self.engine.create_own(spec)
        except NotOffered:
            return None
        return operation

    def _log(self, p: Any) -> Any:
        return self.xp.log(self.xp.maximum(p, SMALLEST))
