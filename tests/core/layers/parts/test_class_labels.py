"""Labels that belong to scores."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import ItemError, UserError
from dtrain.core.layers.parts.class_labels import ClassLabels

SCORES = (2, 3, 4)


def label_blob(shape: tuple[int, ...]) -> Blob:
    blob = Blob(shape)
    blob.data[...] = np.arange(blob.count).reshape(shape) % 3
    return blob


@pytest.mark.parametrize(
    ("axis", "layout"), [(0, (1, 2, 12)), (1, (2, 3, 4)), (2, (6, 4, 1))], ids=["first", "middle", "last"]
)
def test_class_labels_spread_scores_around_the_axis(axis: int, layout: tuple[int, int, int]) -> None:
    labels = ClassLabels(SCORES, axis, Blob((24 // SCORES[axis],)), None, np)
    assert labels.spread(np.zeros(SCORES)).shape == layout


def test_class_labels_index_picks_the_true_class() -> None:
    blob = label_blob((2, 4))
    labels = ClassLabels(SCORES, 1, blob, None, np)
    labels.read(blob)
    scores = np.arange(24).reshape(SCORES)
    expected = [[scores[n, int(blob.data[n, p]), p] for p in range(4)] for n in range(2)]
    np.testing.assert_array_equal(scores[labels.index], expected)
    assert labels.num_valid == 8


def test_class_labels_ignored_are_not_valid_and_count_as_0() -> None:
    blob = label_blob((8, 1))
    blob.data[3] = 255
    labels = ClassLabels((2, 3, 4), 1, blob, 255, np)
    labels.read(blob)
    assert labels.num_valid == 7
    assert not labels.valid[0, 3]
    assert labels.labels[0, 3] == 0


def test_class_labels_of_another_count_name_both_shapes() -> None:
    with pytest.raises(UserError, match=r"scores \(2, 3, 4\) .* axis 1 need 8, got 6 in shape \(2, 3\)"):
        ClassLabels(SCORES, 1, Blob((2, 3)), None, np)


@pytest.mark.parametrize("label", [3, -1])
def test_class_labels_of_no_class_are_named_with_their_item(label: int) -> None:
    blob = label_blob((2, 4))
    blob.data[1, 2] = label
    with pytest.raises(ItemError, match=f"labels must be 0 to 2 .*, got {label}$") as caught:
        ClassLabels(SCORES, 1, blob, None, np).read(blob)
    assert caught.value.item == 1
