"""SoftmaxWithLoss: the multinomial logistic loss of the softmax of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import SoftmaxSpec
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.layers.parts.loss import LossLayer, loss_weight, normalization_of, normalizer
from dtrain.proto import caffe_pb2

SMALLEST = float(np.finfo(np.float32).tiny)  # FLT_MIN: a true class of probability 0 costs 87.3, not infinity


@LAYERS.register("SoftmaxWithLoss")
class SoftmaxWithLoss(LossLayer):
    """loss = −Σ log(max(p[label], FLT_MIN)) / normalizer, p = softmax(scores) along softmax_param.axis (1).

    Bottom 0: scores, C classes along the axis. Bottom 1: labels 0 … C − 1, one per place. Top 0: the loss.
    Top 1, if there is one: p; gradients do not flow back from it. loss_param.ignore_label: places that don't
    count; loss_param.normalization: see loss.py (VALID by default). Follows caffe's softmax_loss_layer.cpp.
    """

    tops = Arity(1, 2)
    no_gradient_bottoms = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError unless there is one label per place."""
        super().reshape(bottom, top)
        shape = bottom[0].shape
        axis = self.canonical_axis(self.param.softmax_param.axis, len(shape), "softmax_param.axis")
        loss_param = self.param.loss_param
        ignore_label = loss_param.ignore_label if loss_param.HasField("ignore_label") else None
        self.labels = ClassLabels(shape, axis, bottom[1], ignore_label, self.xp)
        self.softmax = self.engine.create(SoftmaxSpec(shape, axis))
        self.probabilities = top[1] if len(top) > 1 else Blob(shape, bottom[0].dtype)
        self.probabilities.reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        labels = self.labels
        labels.read(bottom[1])
        mode = normalization_of(self.param.loss_param, caffe_pb2.LossParameter.VALID)
        self.normalizer = normalizer(mode, labels.num_outer, labels.num_inner, labels.num_valid)
        self.softmax.forward(bottom[0], self.probabilities)
        true = labels.spread(self.probabilities.read_data(self.memory))[labels.index]
        logs = self.xp.log(self.xp.maximum(true, SMALLEST)) * labels.valid
        self.write_loss(top, -logs.sum() / self.normalizer)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scores' gradient (p − [class = label])·loss_weight / normalizer, 0 where ignored."""
        if not propagate_down[0]:
            return
        diff = bottom[0].write_diff(self.memory)
        diff[...] = self.probabilities.read_data(self.memory)
        spread = self.labels.spread(diff)
        spread[self.labels.index] -= 1
        if self.labels.ignore_label is not None:
            spread *= self.labels.valid[:, None, :]
        diff *= loss_weight(top) / self.normalizer
