"""How much the loss of each place counts: the weight of its class, and of its item or of the place itself.

An extension of dtrain, for the losses of a softmax (softmax_loss.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.tensor import Memory


class PlaceWeights:
    """Weights of the places of scores of one shape, read anew in each forward pass.

    class_weight: dtrain_param.class_weight, one per class or empty. weight_blob: a weight for each place, shaped
    (outer, inner) in any way, or one for each item (axis 0 of the scores), or None. Raises UserError for another
    number of either.
    """

    def __init__(
        self,
        scores: tuple[int, ...],
        axis: int,
        class_weight: Sequence[float],
        weight_blob: Blob | None,
        labels: ClassLabels,
        name: str,
    ) -> None:
        if class_weight and len(class_weight) != labels.num_classes:
            raise UserError(
                f"dtrain_param.class_weight must be given once per class, {labels.num_classes} times, "
                f"got {len(class_weight)}"
            )
        self._class_weight = list(class_weight)
        self._tables: dict[np.dtype[Any] | None, Any] = {}
        self._labels = labels
        self._num_places = labels.num_outer * labels.num_inner
        self._num_items = scores[0] if axis > 0 else self._num_places
        if weight_blob is not None and weight_blob.count not in (self._num_places, self._num_items):
            raise UserError(
                f"{name} must have a weight for each place ({self._num_places}) or for each item "
                f"({self._num_items}), got {weight_blob.count} in shape {weight_blob.shape}"
            )

    def read(self, weight_blob: Blob | None, memory: Memory) -> Any | None:
        """Return the weights (outer, inner) for the labels that were read last; None if every place counts 1."""
        labels = self._labels
        weights = None if weight_blob is None else self._of_places(weight_blob.read_data(memory))
        if self._class_weight:
            of_class = self._table(None if weights is None else weights.dtype)[labels.labels]
            weights = of_class if weights is None else weights * of_class
        return weights

    def _table(self, dtype: np.dtype[Any] | None) -> Any:
        """Return the weights of classes, made once."""
        if self._tables.get(dtype) is None:
            self._tables[dtype] = self._labels.xp.asarray(self._class_weight, dtype=dtype)
        return self._tables[dtype]

    def _of_places(self, weights: Any) -> Any:
        shape = (self._labels.num_outer, self._labels.num_inner)
        if weights.size == self._num_places:
            return weights.reshape(shape)
        return weights.reshape(-1).repeat(self._num_places // self._num_items).reshape(shape)
