"""Losses with weights of classes, items and places, smoothed labels, or little weight on what is right already:
SoftmaxWithLoss's extensions and FocalLoss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Row, cases, make_rig
from tests.core.layers.loss_formulas import focal, probabilities, smoothed, softmax_loss, sum_over_places
from tests.core.net_builder import inputs, make_net


def softmax_with_loss(fields: str) -> str:
    return f'type: "SoftmaxWithLoss" {fields}'


def focal_loss(fields: str = "") -> str:
    return f'type: "FocalLoss" {fields}'


RANDOM = np.random.default_rng(8)
LABELS = np.array([0, 3, 1, 1, 2, 3])
PLANE_LABELS = RANDOM.integers(0, 4, (2, 1, 3, 2))
ITEM_WEIGHTS, PLANE_WEIGHTS = RANDOM.uniform(0, 2, 6), RANDOM.uniform(0, 2, (2, 6))
CLASS_WEIGHT = (0.5, 2.0, 0.0, 1.25)
CLASS_WEIGHT_FIELD = "class_weight: 0.5 class_weight: 2 class_weight: 0 class_weight: 1.25"
SMOOTHING = 0.25  # exact in float32, in which prototxt has it

ROWS = (
    Row(
        "softmax-loss-class-weight",
        softmax_with_loss(f"dtrain_param {{ {CLASS_WEIGHT_FIELD} }}"),
        ((6, 4), LABELS),
        partial(softmax_loss, class_weight=CLASS_WEIGHT),
    ),
    Row(
        "softmax-loss-item-weights",
        softmax_with_loss(""),
        ((6, 4), LABELS, ITEM_WEIGHTS),
        softmax_loss,
    ),
    Row(
        "softmax-loss-weights-of-items-of-planes",
        softmax_with_loss("loss_param { normalization: BATCH_SIZE }"),
        ((2, 4, 3, 2), PLANE_LABELS, ITEM_WEIGHTS[:2].reshape(2, 1)),
        partial(softmax_loss, divisor=lambda outer, inner, valid: outer),
    ),
    Row(
        "softmax-loss-place-weights",
        softmax_with_loss("loss_param { normalization: FULL }"),
        ((2, 4, 3, 2), PLANE_LABELS, PLANE_WEIGHTS),
        partial(softmax_loss, divisor=lambda outer, inner, valid: outer * inner),
    ),
    Row(
        "softmax-loss-weights-of-items-of-rows",
        softmax_with_loss("softmax_param { axis: 2 }"),
        ((2, 3, 4), PLANE_LABELS.reshape(2, 6)[:, :3], ITEM_WEIGHTS[:2]),
        partial(softmax_loss, axis=2),
    ),
    Row(
        "softmax-loss-smoothed",
        softmax_with_loss("dtrain_param { label_smoothing: 0.25 }"),
        ((6, 4), LABELS),
        partial(sum_over_places, partial(smoothed, smoothing=SMOOTHING)),
    ),
    Row(
        "softmax-loss-all-together",
        softmax_with_loss(
            f"loss_param {{ ignore_label: 1 }} dtrain_param {{ label_smoothing: 0.25 {CLASS_WEIGHT_FIELD} }}"
        ),
        ((2, 4, 3, 2), PLANE_LABELS, PLANE_WEIGHTS),
        partial(sum_over_places, partial(smoothed, smoothing=SMOOTHING), ignore=1, class_weight=CLASS_WEIGHT),
    ),
    Row("focal-loss", focal_loss(), ((6, 4), LABELS), partial(sum_over_places, focal)),
    Row(
        "focal-loss-linear-is-origin",
        focal_loss("focal_loss_param { type: LINEAR gamma: 1.5 alpha: 1.25 beta: 9 }"),
        ((6, 4), LABELS),
        partial(sum_over_places, partial(focal, alpha=1.25, gamma=1.5)),
    ),
    Row(
        "focal-loss-one-add-p",
        focal_loss("focal_loss_param { type: ONEADDP gamma: 0.5 alpha: 0.75 }"),
        ((6, 4), LABELS),
        partial(sum_over_places, partial(focal, alpha=0.75, gamma=0.5, sign=1)),
    ),
    Row(
        "focal-loss-small-base",
        focal_loss("focal_loss_param { gamma: 3 alpha: 0.25 }"),
        ((6, 4), LABELS),
        partial(sum_over_places, partial(focal, alpha=0.25, gamma=3)),
    ),
    Row(
        "focal-loss-gamma-0-is-softmax-loss",
        focal_loss("focal_loss_param { gamma: 0 }"),
        ((6, 4), LABELS),
        softmax_loss,
    ),
    Row(
        "focal-loss-plane-ignore-weights",
        focal_loss(
            f"loss_param {{ ignore_label: 3 normalization: BATCH_SIZE }} dtrain_param {{ {CLASS_WEIGHT_FIELD} }}"
        ),
        ((2, 4, 3, 2), PLANE_LABELS, PLANE_WEIGHTS),
        partial(
            sum_over_places,
            focal,
            ignore=3,
            class_weight=CLASS_WEIGHT,
            divisor=lambda outer, inner, valid: outer,
        ),
    ),
    Row(
        "focal-loss-two-tops",
        focal_loss("softmax_param { axis: -1 }"),
        ((2, 3, 4), PLANE_LABELS.reshape(2, 6)[:, :3]),
        lambda scores, labels: (
            sum_over_places(focal, scores, labels, axis=2),
            probabilities(scores, 2),
        ),
        num_tops=2,
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_weighted_loss_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_loss_of_a_certain_class_has_no_cost_and_no_gradient(gamma: float) -> None:
    rig = make_rig(focal_loss(f"focal_loss_param {{ gamma: {gamma} }}"), [[[1e3, 0.0]], [0]])
    assert rig.forward()[0] == 0
    rig.backward([np.array(1.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, 0)


def test_focal_loss_of_an_impossible_class_is_that_of_the_smallest_float() -> None:
    rig = make_rig(focal_loss(), [[[1e3, 0.0]], [1]])
    np.testing.assert_allclose(rig.forward()[0], 126 * math.log(2))
    rig.backward([np.array(1.0)])
    np.testing.assert_allclose(rig.bottom[0].diff, [[1, -1]])


def test_focal_loss_of_an_even_power_of_a_negative_base_is_finite() -> None:
    rig = make_rig(focal_loss("focal_loss_param { alpha: 0.25 }"), [np.zeros((1, 2)), [1]])
    np.testing.assert_allclose(rig.forward()[0], 0.25**2 * math.log(2))


def test_softmax_loss_weight_of_0_counts_in_the_divisor() -> None:
    rig = make_rig(softmax_with_loss(""), [np.zeros((2, 4)), [0, 1], [0, 1]])
    np.testing.assert_allclose(rig.forward()[0], math.log(4) / 2)


def test_softmax_loss_refuses_weights_that_would_get_a_gradient() -> None:
    text = (
        inputs(x=(2, 3), label=(2,))
        + """
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "weights" inner_product_param { num_output: 1 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "label" bottom: "weights" top: "loss" }"""
    )
    with pytest.raises(UserError, match=r'bottom "weights" can\'t get a gradient from SoftmaxWithLoss'):
        make_net(text)


MISTAKES = [
    (
        softmax_with_loss("dtrain_param { class_weight: 1 class_weight: 2 }"),
        ((2, 4), [0, 1]),
        "dtrain_param.class_weight must be given once per class, 4 times, got 2",
    ),
    (
        softmax_with_loss(""),
        ((2, 4, 3), (2, 3), (4,)),
        'bottom 2 "x2" must have a weight for each place (6) or for each item (2), got 4 in shape (4,)',
    ),
    (
        softmax_with_loss("softmax_param { axis: 0 }"),
        ((2, 4, 3), (2, 6), (2,)),
        'bottom 2 "x2" must have a weight for each place (12) or for each item (12), got 2 in shape (2,)',
    ),
    (
        focal_loss("focal_loss_param { alpha: 0 }"),
        ((2, 4), [0, 1]),
        "focal_loss_param must have alpha greater than 0 and gamma at least 0, got 0 and 2",
    ),
    (
        focal_loss("focal_loss_param { gamma: -1 }"),
        ((2, 4), [0, 1]),
        "focal_loss_param must have alpha greater than 0 and gamma at least 0, got 1 and -1",
    ),
    (
        focal_loss("focal_loss_param { gamma: 1.5 alpha: 0.5 }"),
        ((2, 4), [0, 1]),
        "focal_loss_param.alpha must be at least 1 if gamma is no whole number (1.5), since alpha - p would have "
        "no such power below 0, got 0.5",
    ),
    (
        focal_loss(),
        ((2, 4), [0, 4]),
        "labels must be 0 to 3 (the scores have 4 classes), got 4",
    ),
]


@pytest.mark.parametrize(("layer", "inputs", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_weighted_loss_layer_mistake_is_one_sentence(
    layer: str, inputs: tuple[object, ...], message: str
) -> None:
    arrays = [np.zeros(given) if isinstance(given, tuple) else np.array(given) for given in inputs]
    with pytest.raises(UserError) as caught:
        make_rig(layer, arrays).forward()
    assert str(caught.value) == message
