"""Labels of scores: which of the C classes along an axis is the true one, at each place.

What classification losses and accuracy share. Scores are seen as (outer, C, inner), labels as (outer, inner).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.errors import ItemError, UserError


class ClassLabels:
    """The labels that belong to scores of one shape, read anew in each forward pass.

    After `read`: labels (outer, inner), integers, 0 where ignored; valid (outer, inner), booleans; num_valid.
    """

    def __init__(
        self, scores: tuple[int, ...], axis: int, label_blob: Blob, ignore_label: int | None, xp: Any
    ) -> None:
        self.num_outer, self.num_classes = math.prod(scores[:axis]), scores[axis]
        self.num_inner = math.prod(scores[axis + 1 :])
        num_places = self.num_outer * self.num_inner
        if label_blob.count != num_places:
            raise UserError(
                f"there must be one label per place: scores {scores} with their classes at axis {axis} need "
                f"{num_places}, got {label_blob.count} in shape {label_blob.shape}"
            )
        self._num_items = scores[0]
        self.ignore_label = ignore_label
        self.xp = xp
        self._outer_index = xp.arange(self.num_outer)[:, None]
        self._inner_index = xp.arange(self.num_inner)[None, :]
        self._all_valid = xp.ones((self.num_outer, self.num_inner), bool)

    def read(self, label_blob: Blob) -> None:
        """Take in the labels. Raises UserError if one is neither a class nor ignore_label."""
        labels = label_blob.read_data().reshape(self.num_outer, self.num_inner).astype(np.int64)
        wrong = labels.view(np.uint64) >= self.num_classes  # those below 0 are huge then
        if self.ignore_label is None:
            self._check(labels, wrong)
            self.num_valid, self.valid = labels.size, self._all_valid
        else:
            valid = labels != self.ignore_label
            self._check(labels, wrong & valid)
            self.num_valid, self.valid = int(valid.sum()), self.xp.asarray(valid)
            labels *= valid
        self.labels = self.xp.asarray(labels)

    def _check(self, labels: NDArray[np.int64], wrong: NDArray[np.bool_]) -> None:
        if wrong.any():
            place = int(np.argmax(wrong))
            raise ItemError(
                f"labels must be 0 to {self.num_classes - 1} (the scores have {self.num_classes} classes), "
                f"got {labels.reshape(-1)[place]}",
                item=place * self._num_items // labels.size,
            )

    def spread(self, scores: Any) -> Any:
        """Return an array of the scores' shape as (outer, C, inner)."""
        return scores.reshape(self.num_outer, self.num_classes, self.num_inner)

    @property
    def index(self) -> tuple[Any, Any, Any]:
        """What picks the true class at each place out of an (outer, C, inner) array."""
        return self._outer_index, self.labels, self._inner_index
