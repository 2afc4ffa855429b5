"""HingeLoss: one against all, each class has to be right by a margin of 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.layers.parts.loss import LossLayer, loss_weight
from dtrain.proto import caffe_pb2


@LAYERS.register("HingeLoss")
class HingeLoss(LossLayer):
    """loss = Σ m / N (norm: L1) or Σ m² / N (L2), m = max(0, 1 − t·score), t = 1 at the label's class, −1 elsewhere.

    Bottom 0: scores (N, …), the axes behind the first seen as classes. Bottom 1: labels (N), which get no gradient.
    Top: the loss. Follows caffe's hinge_loss_layer.cpp, which keeps m in the scores' diff between forward and
    backward: forward leaves it there too, but backward does not rely on it. An empty batch costs 0, not NaN.
    """

    no_gradient_bottoms = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError unless there is one label per item."""
        super().reshape(bottom, top)
        shape = bottom[0].shape
        self.labels = ClassLabels((shape[0], math.prod(shape[1:])), 1, bottom[1], None, self.xp)
        self.margins = Blob(shape, bottom[0].dtype)
        self.is_squared = self.param.hinge_loss_param.norm == caffe_pb2.HingeLossParameter.L2

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        self.labels.read(bottom[1], self.engine)
        margins = self.margins.write_data(self.memory)
        margins[...] = bottom[0].read_data(self.memory)
        self.labels.spread(margins)[self.labels.index] *= -1
        margins += 1
        self.xp.maximum(margins, 0, out=margins)
        bottom[0].write_diff(self.memory)[...] = margins
        flat = margins.reshape(-1)
        total = self.engine.sum_squares(flat) if self.is_squared else flat.sum()
        self.write_loss(top, total / self.num_items(bottom) + self.labels.nan_if_wrong)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scores' gradient −t·[m > 0] (L1) or −2·t·m (L2), times loss_weight / N."""
        if not propagate_down[0]:
            return
        diff = bottom[0].write_diff(self.memory)
        margins = self.margins.read_data(self.memory)
        if self.is_squared:
            self.xp.multiply(margins, 2, out=diff)
        else:
            self.xp.sign(margins, out=diff)
        self.labels.spread(diff)[self.labels.index] *= -1
        diff *= loss_weight(top, self.memory) / self.num_items(bottom)
