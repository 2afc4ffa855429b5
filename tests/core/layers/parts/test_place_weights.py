"""Weights of places: those of classes, of items and of the places themselves."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.parts.class_labels import ClassLabels
from dtrain.core.layers.parts.place_weights import PlaceWeights
from dtrain.core.tensor import HOST
from tests.core.layers.layer_harness import Array

SCORES = (2, 3, 4)  # two items of four places, three classes
LABELS = np.array([[0, 1, 2, 0], [1, 1, 2, 0]])


def blob_of(values: Array) -> Blob:
    blob = Blob(values.shape)
    blob.data[...] = values
    return blob


def read_weights(class_weight: tuple[float, ...] = (), weights: Array | None = None) -> Array | None:
    label_blob = blob_of(LABELS)
    weight_blob = None if weights is None else blob_of(weights)
    labels = ClassLabels(SCORES, 1, label_blob, None, np)
    place_weights = PlaceWeights(SCORES, 1, class_weight, weight_blob, labels, "bottom 2")
    labels.read(label_blob)
    return place_weights.read(weight_blob, HOST)


def test_place_weights_that_are_not_given_are_none() -> None:
    assert read_weights() is None


def test_place_weights_of_classes_follow_the_labels() -> None:
    np.testing.assert_array_equal(read_weights((1, 2, 4)), [[1, 2, 4, 1], [2, 2, 4, 1]])


def test_place_weights_of_items_hold_for_all_their_places() -> None:
    np.testing.assert_array_equal(read_weights(weights=np.array([3, 5])), [[3] * 4, [5] * 4])


def test_place_weights_of_places_may_have_any_shape() -> None:
    np.testing.assert_array_equal(
        read_weights(weights=np.arange(8).reshape(2, 1, 2, 2)), [[0, 1, 2, 3], [4, 5, 6, 7]]
    )


def test_place_weights_of_both_kinds_multiply() -> None:
    weights = read_weights((1, 2, 4), np.array([3, 5]))
    np.testing.assert_array_equal(weights, [[3, 6, 12, 3], [10, 10, 20, 5]])


def test_place_weights_of_an_empty_batch_are_empty() -> None:
    labels = ClassLabels((0, 3, 4), 1, Blob((0, 4)), None, np)
    blob = Blob((0,))
    labels.read(Blob((0, 4)))
    assert PlaceWeights((0, 3, 4), 1, (), blob, labels, "bottom 2").read(blob, HOST).shape == (0, 4)


def test_place_weights_of_another_number_of_classes_are_an_error() -> None:
    with pytest.raises(UserError, match=r"must be given once per class, 3 times, got 2$"):
        read_weights((1, 2))


def test_place_weights_of_another_number_of_places_are_an_error() -> None:
    with pytest.raises(
        UserError, match=r"^bottom 2 must .* place \(8\) or for each item \(2\), got 4 in shape"
    ):
        read_weights(weights=np.ones(4))
