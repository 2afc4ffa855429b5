"""MultinomialLogisticLoss: the logarithm of the true class's probability, where the bottom is probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.layers.parts.loss import LossLayer, loss_weight

SMALLEST = 1e-20  # a true class of smaller probability costs as much as one of this: 46.1


@LAYERS.register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(LossLayer):
    """loss = −Σ log(max(p[label], 1e-20)) / N.

    Bottom 0: probabilities (N, …), the axes behind the first seen as classes. Bottom 1: labels (N), which get no
    gradient. Top: the loss. loss_param is not read. Follows caffe's multinomial_logistic_loss_layer.cpp, but an
    empty batch costs 0, not NaN.
    """

    no_gradient_bottoms = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError unless there is one label per item."""
        super().reshape(bottom, top)
        shape = bottom[0].shape
        self.labels = ClassLabels((shape[0], math.prod(shape[1:])), 1, bottom[1], None, self.xp)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss. Raises UserError for a label that is no class."""
        self.labels.read(bottom[1], self.engine)
        loss = -self.xp.log(self._true(bottom)).sum() / self.num_items(bottom)
        self.write_loss(top, loss + self.labels.nan_if_wrong)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the probabilities' gradient: −loss_weight / (N·max(p[label], 1e-20)) there, 0 elsewhere."""
        if not propagate_down[0]:
            return
        diff = bottom[0].write_diff(self.memory)
        diff[...] = 0
        scale = -loss_weight(top, self.memory) / self.num_items(bottom)
        self.labels.spread(diff)[self.labels.index] = scale / self._true(bottom)

    def _true(self, bottom: Sequence[Blob]) -> Any:
        spread = self.labels.spread(bottom[0].read_data(self.memory))
        return self.xp.maximum(spread[self.labels.index], SMALLEST)
