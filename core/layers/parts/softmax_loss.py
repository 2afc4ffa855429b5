"""Losses of a softmax: scores become probabilities, and those of each place are compared with its label.

SoftmaxWithLoss, FocalLoss and InfogainLoss are such; each says only what one place costs and how that depends
on the scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import SoftmaxSpec
from dtrain.core.layers.layer import Arity
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.layers.parts.loss import LossLayer, loss_weight, normalization_of, normalizer
from dtrain.core.layers.parts.place_weights import PlaceWeights
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.proto import caffe_pb2

SMALLEST = float(np.finfo(np.float32).tiny)  # FLT_MIN: a true class of probability 0 costs 87.3, not infinity


class SoftmaxLossLayer(LossLayer):
    """loss = Σ weight·(what a place costs) / normalizer, with p = softmax(scores) along softmax_param.axis (1).

    Bottom 0: scores, C classes along the axis. Bottom 1: labels 0 … C − 1, one per place; no gradient. Bottom 2,
    an extension: weights, one per place or one per item; no gradient. Top 0: the loss. Top 1, if there is one: p;
    gradients do not flow back from it.
    loss_param: ignore_label, a label whose places don't count; normalization, see loss.py (VALID by default).
    Extension `dtrain_param.class_weight`: a weight for each class. Weights don't change the normalizer, which
    counts places.
    """

    messages: ClassVar[tuple[str, ...] | None] = ("softmax_param", "loss_param")
    extensions: ClassVar[tuple[str, ...]] = ("class_weight",)
    bottoms = Arity(2, 3)
    tops = Arity(1, 2)
    no_gradient_bottoms = (1, 2)

    def class_axis(self, num_axes: int) -> int:
        """Return the axis of the classes. Raises UserError if there is no such axis."""
        return self.canonical_axis(self.param.softmax_param.axis, num_axes, "softmax_param.axis")

    def weight_blob(self, bottom: Sequence[Blob]) -> Blob | None:
        """Return the bottom of weights, if there is one."""
        return bottom[2] if len(bottom) > 2 else None

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError unless there is one label per place and the weights fit."""
        super().reshape(bottom, top)
        shape = bottom[0].shape
        axis = self.class_axis(len(shape))
        param = self.param.loss_param
        ignore_label = param.ignore_label if param.HasField("ignore_label") else None
        self.labels = ClassLabels(shape, axis, bottom[1], ignore_label, self.xp)
        self.normalization = normalization_of(param, caffe_pb2.LossParameter.VALID)
        class_weight = self.param.dtrain_param.class_weight
        blob = self.weight_blob(bottom)
        self.weights = PlaceWeights(shape, axis, class_weight, blob, self.labels, name_bottom(self, 2))
        self.softmax = self.engine.create(SoftmaxSpec(shape, axis))
        self.probabilities = top[1] if len(top) > 1 else Blob(shape, bottom[0].dtype)
        self.probabilities.reshape(*shape)

    def read(self, bottom: Sequence[Blob]) -> Any:
        """Take in labels and weights and return p as (outer, C, inner). Raises UserError for a wrong label."""
        labels = self.labels
        labels.read(bottom[1], self.engine)
        self.place_weights = self.weights.read(self.weight_blob(bottom), self.memory)
        counts = labels.num_outer, labels.num_inner, labels.num_valid
        self.normalizer = normalizer(self.normalization, *counts)
        self.softmax.forward(bottom[0], self.probabilities)
        return self.p

    @property
    def p(self) -> Any:
        """The probabilities as (outer, C, inner), not to be changed."""
        return self.labels.spread(self.probabilities.read_data(self.memory))

    @property
    def _may_ignore(self) -> bool:
        """Whether labels may be ignored, on the host: whether one is."""
        num_valid = self.labels.num_valid
        return not isinstance(num_valid, int) or num_valid < int(self.labels.valid.size)

    def write_sum(self, top: Sequence[Blob], losses: Any) -> None:
        """Write the loss from what each place (outer, inner) costs."""
        if self.place_weights is not None:
            losses = losses * self.place_weights
        if self._may_ignore:
            losses = self.xp.where(self.labels.valid, losses, 0)
        self.write_loss(top, losses.sum() / self.normalizer + self.labels.nan_if_wrong)

    def weigh_gradient(self, top: Sequence[Blob], gradient: Any, factor: Any | None = None) -> None:
        """Multiply a gradient (outer, C, inner), in place, by what the sum of losses multiplies each place by.

        That is weight·loss_weight / normalizer, and 0 where the label is ignored; times `factor` (outer, inner).
        """
        labels = self.labels
        scale = loss_weight(top, self.memory) / self.normalizer
        if self.place_weights is not None:
            factor = self.place_weights if factor is None else factor * self.place_weights
        gradient *= scale if factor is None else (factor * scale)[:, None, :].astype(gradient.dtype)
        if self._may_ignore:
            self.xp.copyto(gradient, 0, where=~labels.valid[:, None, :])
