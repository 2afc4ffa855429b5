"""Losses of the distance between two blobs, pair by pair: ContrastiveLoss and SmoothL1Loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from tests.core.layers.layer_harness import Array, Row, cases, make_rig
from tests.core.net_builder import inputs, make_net


def contrastive(a: Array, b: Array, similar: Array, margin: float = 1, legacy: bool = False) -> float:
    total = 0.0
    for x, y, is_similar in zip(a, b, similar.flat, strict=True):
        squared = float(((x - y) ** 2).sum())
        if is_similar:
            total += squared
        else:
            total += max(margin - squared, 0) if legacy else max(margin - math.sqrt(squared), 0) ** 2
    return total / 2 / max(1, len(a))


def contrastive_gradient(a: Array, b: Array, similar: Array, margin: float) -> Array:
    """Return that of a, as Caffe divides by the distance: with 1e-4 added."""
    gradient = np.zeros_like(a)
    for i, is_similar in enumerate(similar):
        distance = math.sqrt(((a[i] - b[i]) ** 2).sum())
        slope = 1 if is_similar else -max(margin - distance, 0) / (distance + 1e-4)
        gradient[i] = slope * (a[i] - b[i]) / len(a)
    return gradient


def smooth(difference: float, sigma: float) -> float:
    if abs(difference) < 1 / sigma**2:
        return 0.5 * (sigma * difference) ** 2
    return abs(difference) - 0.5 / sigma**2


def smooth_l1(
    prediction: Array,
    target: Array,
    inside: Array | None = None,
    outside: Array | None = None,
    sigma: float = 1,
) -> float:
    inside = np.ones_like(prediction) if inside is None else inside
    outside = np.ones_like(prediction) if outside is None else outside
    every = zip(prediction.flat, target.flat, inside.flat, outside.flat, strict=True)
    return sum(o * smooth(i * (p - t), sigma) for p, t, i, o in every) / max(1, len(prediction))


def contrastive_loss(fields: str = "") -> str:
    return f'type: "ContrastiveLoss" contrastive_loss_param {{ {fields} }}'


def smooth_l1_loss(fields: str = "") -> str:
    return f'type: "SmoothL1Loss" smooth_l1_loss_param {{ {fields} }}'


RANDOM = np.random.default_rng(10)
SIMILAR = np.array([1, 0, 0, 2, 0, 0])
FAR_A, FAR_B = 1000 * RANDOM.standard_normal((2, 6, 4))
BOXES = RANDOM.standard_normal((2, 3, 4, 2, 2))
INSIDE, OUTSIDE = RANDOM.uniform(0, 2, (2, 3, 4, 2, 2))

ROWS = (
    Row(
        "contrastive-loss",
        contrastive_loss("margin: 3"),
        ((6, 4), (6, 4), SIMILAR),
        partial(contrastive, margin=3),
        gradient_tops=(),  # it is not quite the slope; see test_contrastive_loss_gradient_…
    ),
    Row(
        "contrastive-loss-far-apart",  # so far that 1e-4 is nothing
        contrastive_loss("margin: 4000"),
        (FAR_A, FAR_B, SIMILAR),
        partial(contrastive, margin=4000),
    ),
    Row(
        "contrastive-loss-legacy",
        contrastive_loss("legacy_version: true margin: 8"),
        ((6, 4), (6, 4), SIMILAR.reshape(6, 1)),
        partial(contrastive, margin=8, legacy=True),
    ),
    Row(
        "contrastive-loss-old-axes",
        contrastive_loss("legacy_version: true"),
        ((6, 4, 1, 1), (6, 4), SIMILAR.reshape(6, 1, 1, 1)),
        lambda a, b, similar: contrastive(a[:, :, 0, 0], b, similar, legacy=True),
    ),
    Row("smooth-l1-loss", smooth_l1_loss(), ((5, 6), (5, 6)), smooth_l1),
    Row(
        "smooth-l1-loss-sigma",
        smooth_l1_loss("sigma: 3"),
        ((5, 6), (5, 6, 1, 1)),
        partial(smooth_l1, sigma=3),
    ),
    Row(
        "smooth-l1-loss-weights",
        smooth_l1_loss("sigma: 1.5"),
        (*BOXES, INSIDE, OUTSIDE),
        partial(smooth_l1, sigma=1.5),
        gradient_tops=(),  # the weights get none; see test_smooth_l1_loss_weights_…
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_pair_loss_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_contrastive_loss_gradient_adds_1e_4_to_the_distance_as_caffe_does() -> None:
    a, b = RANDOM.standard_normal((2, 6, 4)) * 0.01
    a[2] = b[2]
    rig = make_rig(contrastive_loss("margin: 0.02"), [a, b, SIMILAR])
    rig.forward()
    rig.backward([np.array(2.0)])
    expected = 2 * contrastive_gradient(a, b, SIMILAR, margin=np.float32(0.02))
    np.testing.assert_allclose(rig.bottom[0].diff, expected, rtol=1e-10)
    np.testing.assert_allclose(rig.bottom[1].diff, -expected, rtol=1e-10)


def test_contrastive_loss_propagates_into_the_second_bottom_alone() -> None:
    rig = make_rig(contrastive_loss(), [np.ones((1, 2)), np.zeros((1, 2)), [1]])
    rig.forward()
    rig.bottom[0].diff[...] = 7
    rig.backward([np.array(1.0)], [False, True, False])
    np.testing.assert_array_equal(rig.bottom[0].diff, 7)
    np.testing.assert_array_equal(rig.bottom[1].diff, -1)


def test_contrastive_loss_similar_is_an_integer_part() -> None:
    rig = make_rig(contrastive_loss(), [np.ones((1, 1)), np.zeros((1, 1)), [0.9]])
    assert rig.forward()[0] == 0  # dissimilar, and a margin apart


def test_smooth_l1_loss_weights_multiply_both_gradients_and_get_0() -> None:
    prediction, target = BOXES
    rig = make_rig(smooth_l1_loss("sigma: 2"), [prediction, target, INSIDE, OUTSIDE])
    rig.forward()
    rig.bottom[2].diff[...] = rig.bottom[3].diff[...] = 7
    rig.backward([np.array(3.0)], [True, True, True, True])
    difference = INSIDE * (prediction - target)
    slope = np.where(np.abs(difference) < 0.25, 4 * difference, np.sign(difference))
    expected = 3 * slope * INSIDE * OUTSIDE / 3
    np.testing.assert_allclose(rig.bottom[0].diff, expected, rtol=1e-12)
    np.testing.assert_allclose(rig.bottom[1].diff, -expected, rtol=1e-12)
    np.testing.assert_array_equal(rig.bottom[2].diff, 0)
    np.testing.assert_array_equal(rig.bottom[3].diff, 0)


def net_of_smooth_l1_loss(fields: str) -> Net:
    """Return a net in which target and weights come from a layer that learns, as those of Faster R-CNN's do."""
    return make_net(
        inputs(x=(2, 3))
        + f"""
        layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {{ num_output: 3
                 weight_filler {{ type: "constant" value: 1 }} }} }}
        layer {{ name: "loss" type: "SmoothL1Loss" bottom: "x" bottom: "y" bottom: "y" bottom: "y" top: "loss"
                 {fields} }}"""
    )


@pytest.mark.parametrize(("fields", "loss"), [("", 0), ("loss_weight: 2", 2 * 3 * 3 * (6 - 0.5))])
def test_smooth_l1_loss_counts_only_with_a_loss_weight(fields: str, loss: float) -> None:
    net = net_of_smooth_l1_loss(fields)
    net.blobs["x"].data[...] = 1  # so y is 3, and 3·(1 − 3) the difference
    assert net.forward() == loss


def test_smooth_l1_loss_takes_weights_from_layers_that_learn_as_constants() -> None:
    net = net_of_smooth_l1_loss("loss_weight: 2")
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    # of the target, 2·3·3 / N for each of N items, times x
    np.testing.assert_array_equal(net.params["ip"][0].diff, np.full((3, 3), 18))


MISTAKES = [
    (
        contrastive_loss(),
        ((2, 4), (2, 3), (2,)),
        'the pairs must be vectors (N, C) of one length, got (2, 4) from bottom 0 "x0" and (2, 3) from '
        'bottom 1 "x1"',
    ),
    (
        contrastive_loss(),
        ((2, 4, 2), (2, 4, 2), (2,)),
        'the pairs must be vectors (N, C) of one length, got (2, 4, 2) from bottom 0 "x0" and (2, 4, 2) from '
        'bottom 1 "x1"',
    ),
    (
        contrastive_loss(),
        ((2, 4), (2, 4), (2, 3)),
        'bottom 2 "x2" must have one value per pair (2), got 6 in shape (2, 3)',
    ),
    (
        smooth_l1_loss(),
        ((2, 4), (2, 4), (2, 4)),
        "needs 2 bottoms (prediction, target) or 4 (inside and outside weights too), got 3",
    ),
    (
        smooth_l1_loss("sigma: 0"),
        ((2, 4), (2, 4)),
        "smooth_l1_loss_param.sigma must be greater than 0, got 0",
    ),
    (
        smooth_l1_loss(),
        ((2, 4), (2, 4), (2, 4), (2, 2, 2)),
        'all bottoms must have one shape, got (2, 4) from bottom 0 "x0" and (2, 2, 2) from bottom 3 "x3"',
    ),
]


@pytest.mark.parametrize(("layer", "inputs", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_pair_loss_layer_mistake_is_one_sentence(
    layer: str, inputs: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape) for shape in inputs]).forward()
    assert str(caught.value) == message
