"""Layers that compare with labels or targets: SoftmaxWithLoss, EuclideanLoss, Accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import TEST, Array, Row, cases, make_rig
from tests.core.layers.loss_formulas import probabilities, softmax_loss


def softmax_loss_and_probabilities(scores: Array, labels: Array) -> tuple[float, Array]:
    return softmax_loss(scores, labels), probabilities(scores)


def accuracy(scores: Array, labels: Array, top_k: int = 1, axis: int = 1, ignore: int | None = None) -> Array:
    return accuracies(scores, labels, top_k, axis, ignore)[0]


def accuracies(
    scores: Array, labels: Array, top_k: int = 1, axis: int = 1, ignore: int | None = None
) -> tuple[Array, Array]:
    """Return the accuracy and that of each class: a hit is a true class that ranks among top_k for sure."""
    rows = np.moveaxis(scores, axis, -1).reshape(labels.size, scores.shape[axis])
    hits: dict[int, list[bool]] = {label: [] for label in range(scores.shape[axis])}
    for row, label in zip(rows, labels.reshape(-1).astype(int), strict=True):
        if label != ignore:
            others = np.delete(row, label)
            hits[label].append(np.count_nonzero(others >= row[label]) < top_k)
    every = [hit for found in hits.values() for hit in found]
    per_class = [sum(found) / max(1, len(found)) for found in hits.values()]
    return np.array(sum(every) / max(1, len(every))), np.array(per_class)


def softmax_with_loss(fields: str = "") -> str:
    return f'type: "SoftmaxWithLoss" {fields}'


SCORES = np.random.default_rng(5).standard_normal((6, 4))
LABELS = np.array([0, 3, 1, 1, 2, 3])
PLANE_LABELS = np.random.default_rng(6).integers(0, 4, (2, 1, 3, 2))

ROWS = (
    Row("softmax-loss", softmax_with_loss(), ((6, 4), LABELS), softmax_loss),
    Row(
        "softmax-loss-plane-ignore",
        softmax_with_loss("loss_param { ignore_label: 2 }"),
        ((2, 4, 3, 2), PLANE_LABELS),
        partial(softmax_loss, ignore=2),
    ),
    Row(
        "softmax-loss-ignored-not-a-class",
        softmax_with_loss("loss_param { ignore_label: 255 }"),
        ((3, 4), [1, 255, 0]),
        partial(softmax_loss, ignore=255),
    ),
    Row(
        "softmax-loss-all-ignored",
        softmax_with_loss("loss_param { ignore_label: -1 }"),
        ((2, 4), [-1, -1]),
        lambda scores, labels: 0.0,
    ),
    Row(
        "softmax-loss-full",
        softmax_with_loss("loss_param { ignore_label: 2 normalization: FULL }"),
        ((2, 4, 3, 2), PLANE_LABELS),
        partial(softmax_loss, ignore=2, divisor=lambda outer, inner, valid: outer * inner),
    ),
    Row(
        "softmax-loss-batch-size",
        softmax_with_loss("loss_param { normalization: BATCH_SIZE }"),
        ((2, 4, 3, 2), PLANE_LABELS),
        partial(softmax_loss, divisor=lambda outer, inner, valid: outer),
    ),
    Row(
        "softmax-loss-none",
        softmax_with_loss("loss_param { normalization: NONE normalize: true }"),
        ((6, 4), LABELS),
        partial(softmax_loss, divisor=lambda outer, inner, valid: 1),
    ),
    Row(
        "softmax-loss-old-normalize-false",
        softmax_with_loss("loss_param { normalize: false }"),
        ((2, 4, 3, 2), PLANE_LABELS),
        partial(softmax_loss, divisor=lambda outer, inner, valid: outer),
    ),
    Row(
        "softmax-loss-old-normalize-true",
        softmax_with_loss("loss_param { normalize: true ignore_label: 0 }"),
        ((2, 4, 3, 2), PLANE_LABELS),
        partial(softmax_loss, ignore=0),
    ),
    Row(
        "softmax-loss-axis",
        softmax_with_loss("softmax_param { axis: -1 }"),
        ((2, 3, 4), PLANE_LABELS.reshape(2, 6)[:, :3]),
        partial(softmax_loss, axis=2),
    ),
    Row(
        "softmax-loss-two-tops",
        softmax_with_loss(),
        ((6, 4), LABELS),
        softmax_loss_and_probabilities,
        num_tops=2,
    ),
    Row(
        "euclidean-loss",
        'type: "EuclideanLoss"',
        ((4, 3, 2), (4, 6)),
        lambda a, b: ((a.reshape(len(a), 6) - b) ** 2).sum() / 2 / max(1, len(a)),
    ),
    Row("accuracy", 'type: "Accuracy"', (SCORES, LABELS), accuracy),
    Row(
        "accuracy-top-k",
        'type: "Accuracy" accuracy_param { top_k: 2 }',
        (SCORES, LABELS),
        partial(accuracy, top_k=2),
        phases=(TEST,),
    ),
    Row(
        "accuracy-plane-ignore-per-class",
        'type: "Accuracy" accuracy_param { ignore_label: 1 }',
        ((2, 4, 3, 2), PLANE_LABELS),
        partial(accuracies, ignore=1),
        num_tops=2,
    ),
    Row(
        "accuracy-axis",
        'type: "Accuracy" accuracy_param { axis: 2 top_k: 3 }',
        ((2, 3, 4), PLANE_LABELS.reshape(2, 6)[:, :3]),
        partial(accuracy, axis=2, top_k=3),
    ),
    Row(
        "accuracy-ties",
        'type: "Accuracy" accuracy_param { top_k: 2 }',
        ([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 1.0]], [0, 0, 1]),
        lambda scores, labels: 0.0 if len(scores) == 0 else 2 / 3,
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_loss_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_softmax_loss_of_an_impossible_class_is_that_of_the_smallest_float() -> None:
    rig = make_rig(softmax_with_loss(), [[[1e4, 0.0]], [1]])
    np.testing.assert_allclose(rig.forward()[0], 126 * math.log(2))  # FLT_MIN is 2^−126


def test_accuracy_of_scores_that_are_nan_counts_against() -> None:
    rig = make_rig('type: "Accuracy"', [[[math.nan, math.nan], [0.0, 1.0]], [0, 1]])
    assert rig.forward()[0] == 0.5


MISTAKES = [
    (
        softmax_with_loss(),
        ((3, 4), [0, 4, 1]),
        "labels must be 0 to 3 (the scores have 4 classes), got 4",
    ),
    (
        'type: "Accuracy" accuracy_param { ignore_label: 9 }',
        ((3, 4), [0, 9, -1]),
        "labels must be 0 to 3 (the scores have 4 classes), got -1",
    ),
    (
        softmax_with_loss(),
        ((2, 4, 3), [[0, 1], [0, 1]]),
        "there must be one label per place: scores (2, 4, 3) with their classes at axis 1 need 6, "
        "got 4 in shape (2, 2)",
    ),
    (
        softmax_with_loss(),
        ((2, 4), [0, 1, 2]),
        'the bottoms must have as many items, got (2, 4) from bottom 0 "x0" and (3,) from bottom 1 "x1"',
    ),
    (
        'type: "EuclideanLoss"',
        ((2, 4), (2, 3)),
        "the bottoms must have as many values per item, got 4 in (2, 4) and 3 in (2, 3)",
    ),
    (
        'type: "EuclideanLoss"',
        ((), ()),
        'bottom 0 "x0" must have an axis of items, got a scalar',
    ),
    (
        'type: "Accuracy" accuracy_param { top_k: 5 }',
        ((2, 4), [0, 1]),
        "accuracy_param.top_k must be 1 to 4 (the classes), got 5",
    ),
    (
        'type: "Accuracy" accuracy_param { axis: 2 }',
        ((2, 4), [0, 1]),
        "accuracy_param.axis must be -2 to 1 for 2 axes, got 2",
    ),
]


@pytest.mark.parametrize(("layer", "inputs", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_loss_layer_mistake_is_one_sentence(layer: str, inputs: tuple[object, ...], message: str) -> None:
    arrays = [np.zeros(given) if isinstance(given, tuple) else np.array(given) for given in inputs]
    with pytest.raises(UserError) as caught:
        make_rig(layer, arrays).forward()
    assert str(caught.value) == message


def test_softmax_with_loss_without_items_and_places_costs_nothing() -> None:
    rig = make_rig('type: "SoftmaxWithLoss"', [np.zeros((0, 0, 2)), np.zeros((0, 2))])
    assert rig.forward()[0] == 0
    rig.backward([np.ones(())])
