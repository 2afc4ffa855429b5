"""What losses of a softmax share: axis, labels, weights and divisor, and places that are left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dtrain.core.layers.parts.softmax_loss import SoftmaxLossLayer
from tests.core.layers.layer_harness import Rig, make_rig

IGNORING = "loss_param { ignore_label: 9 }"


def make_loss(
    scores: object, labels: object, *weights: object, fields: str = IGNORING
) -> tuple[SoftmaxLossLayer, Rig]:
    rig = make_rig(f'type: "SoftmaxWithLoss" {fields}', [scores, labels, *weights])
    layer = rig.layer
    assert isinstance(layer, SoftmaxLossLayer)
    return layer, rig


def test_softmax_loss_layer_reads_probabilities_spread_around_the_axis() -> None:
    layer, rig = make_loss(np.zeros((2, 4, 3, 5)), np.zeros((2, 3, 5)))
    np.testing.assert_allclose(layer.read(rig.bottom), np.full((2, 4, 15), 0.25))
    assert layer.normalizer == 30


@pytest.mark.parametrize(("weights", "total"), [((), 1 + 4), (([2, 3, 5],), 2 + 4 * 5)])
def test_softmax_loss_layer_sums_what_is_not_ignored(weights: tuple[list[int], ...], total: float) -> None:
    layer, rig = make_loss(np.zeros((3, 2)), [0, 9, 1], *weights)
    layer.read(rig.bottom)
    layer.write_sum(rig.top, np.array([[1.0], [2.0], [4.0]]))
    assert rig.top[0].data == total / 2


def test_softmax_loss_layer_weighs_a_gradient_in_place() -> None:
    layer, rig = make_loss(np.zeros((3, 2)), [0, 9, 1], [2, 3, 5])
    layer.read(rig.bottom)
    rig.top[0].diff[...] = 0.5
    gradient = np.ones((3, 2, 1))
    layer.weigh_gradient(rig.top, gradient, np.array([[1.0], [1.0], [10.0]]))
    np.testing.assert_array_equal(gradient[:, :, 0], [[0.5, 0.5], [0, 0], [12.5, 12.5]])


def test_softmax_loss_layer_ignores_a_place_whose_scores_and_weight_are_no_numbers() -> None:
    _, rig = make_loss([[-math.inf, -math.inf], [0.0, 0.0]], [9, 0], [math.inf, 1])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(rig.forward()[0], math.log(2))
        rig.backward([np.array(1.0)])
    np.testing.assert_allclose(rig.bottom[0].diff, [[0, 0], [-0.5, 0.5]])
