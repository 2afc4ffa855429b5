"""Accuracy: how often the true class is among the top_k scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.class_labels import ClassLabels


@LAYERS.register("Accuracy")
class Accuracy(Layer):
    """Bottom 0: scores, C classes along accuracy_param.axis (1). Bottom 1: labels 0 … C − 1, one per place.

    Top 0: the share of places where fewer than top_k other classes score at least as high as the true one
    (so ties count against), of those whose label is not ignore_label; 0 if there are none. Top 1, if there is
    one: the same for each class, (C). Follows caffe's accuracy_layer.cpp, except that scores that are NaN
    count against too: Caffe reports a net that has diverged as perfect.
    """

    bottoms = Arity(2, 2)
    tops = Arity(1, 2)
    has_backward = False
    no_gradient_bottoms = (0, 1)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError unless there is one label per place and top_k ≤ C."""
        param, shape = self.param.accuracy_param, bottom[0].shape
        axis = self.canonical_axis(param.axis, len(shape), "accuracy_param.axis")
        if not 1 <= param.top_k <= shape[axis]:
            raise UserError(
                f"accuracy_param.top_k must be 1 to {shape[axis]} (the classes), got {param.top_k}"
            )
        ignore_label = param.ignore_label if param.HasField("ignore_label") else None
        self.labels = ClassLabels(shape, axis, bottom[1], ignore_label, self.xp)
        top[0].reshape()
        if len(top) > 1:
            top[1].reshape(shape[axis])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the accuracy. Raises UserError for a label that is no class."""
        labels = self.labels
        labels.read(bottom[1], self.engine)
        scores = labels.spread(bottom[0].read_data(self.memory))
        not_below = ~(scores < scores[labels.index][:, None, :])  # the true class itself included
        hits = (not_below.sum(axis=1) <= self.param.accuracy_param.top_k) & labels.valid
        num_valid = labels.valid.sum().clip(1, None)
        top[0].write_data(self.memory)[...] = hits.sum() / num_valid + labels.nan_if_wrong
        if len(top) > 1:
            found, present = self._per_class(hits), self._per_class(labels.valid)
            top[1].write_data(self.memory)[...] = found / self.xp.maximum(present, 1)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: the net refuses to ask for a gradient here."""

    def _per_class(self, places: Any) -> Any:
        """Count the chosen places of each class."""
        classes = self.xp.arange(self.labels.num_classes)[None, :, None]
        is_chosen = (self.labels.labels[:, None, :] == classes) & places[:, None, :]
        return is_chosen.sum(axis=(0, 2))
