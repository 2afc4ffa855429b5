"""Labels of scores: which of the C classes along an axis is the true one, at each place.

What classification losses and accuracy share. Scores are seen as (outer, C, inner), labels as (outer, inner).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.errors import ItemError, UserError


class ClassLabels:
    """The labels that belong to scores of one shape, read anew in each forward pass.

    After `read`: labels (outer, inner), integers, 0 where ignored; valid (outer, inner), booleans; num_valid, and
    nan_if_wrong, to be added to what is made of them: 0, or NaN where a label is no class, which on a GPU nobody has
    looked at. These two are numbers, on a GPU arrays without axes.
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
        self.num_valid: Any = num_places
        self.nan_if_wrong: Any = 0.0

    def read(self, label_blob: Blob, engine: Engine | None = None) -> None:
        """Take in the labels, as arrays of `engine`, None: numpy. Raises UserError as `check` does, if it looks."""
        if engine is not None and engine.memory.has_addresses:
            if engine.looks_at_values():
                self.check(label_blob)
            self._read_on_device(label_blob.read_data(engine.memory).reshape(self.num_outer, self.num_inner))
            return
        labels, valid = self._check(label_blob)
        self.num_valid, self.nan_if_wrong = labels.size, 0.0
        if valid is not self._all_valid:
            self.num_valid = int(valid.sum())
            labels *= valid
        self.labels, self.valid = labels, valid

    def check(self, label_blob: Blob) -> None:
        """Raise UserError if a label is neither a class nor ignore_label."""
        self._check(label_blob)

    def _read_on_device(self, values: Any) -> None:
        """Take in labels where they are, without looking at them."""
        labels = values.astype(np.int64)
        is_wrong = (labels < 0) | (labels >= self.num_classes)
        self.num_valid, self.valid = labels.size, self._all_valid
        if self.ignore_label is not None:
            self.valid = labels != self.ignore_label
            self.num_valid = self.valid.sum()
            is_wrong &= self.valid
        self.nan_if_wrong = self.xp.where(is_wrong.any(), np.float32(np.nan), np.float32(0))
        self.labels = self.xp.where(is_wrong | ~self.valid, np.int64(0), labels)

    def _check(self, label_blob: Blob) -> tuple[NDArray[np.int64], Any]:
        """Return the labels and which are valid."""
        labels = label_blob.read_data().reshape(self.num_outer, self.num_inner).astype(np.int64)
        is_wrong, valid = labels.view(np.uint64) >= self.num_classes, self._all_valid  # below 0: huge
        if self.ignore_label is not None:
            valid = labels != self.ignore_label
            is_wrong &= valid
        if is_wrong.any():
            place = int(np.argmax(is_wrong))
            raise ItemError(
                f"labels must be 0 to {self.num_classes - 1} (the scores have {self.num_classes} classes), "
                f"got {labels.reshape(-1)[place]}",
                item=place * self._num_items // labels.size,
            )
        return labels, valid

    def spread(self, scores: Any) -> Any:
        """Return an array of the scores' shape as (outer, C, inner)."""
        return scores.reshape(self.num_outer, self.num_classes, self.num_inner)

    @property
    def index(self) -> tuple[Any, Any, Any]:
        """What picks the true class at each place out of an (outer, C, inner) array."""
        return self._outer_index, self.labels, self._inner_index
