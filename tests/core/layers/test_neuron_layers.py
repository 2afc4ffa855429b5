"""Layers that work on each value by itself: ReLU, Sigmoid, TanH, Dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import TEST, TRAIN, Array, Row, cases, make_rig

ROWS = (
    Row("relu", 'type: "ReLU"', ((2, 3, 4, 5),), lambda x: x * (x > 0)),
    Row(
        "relu-slope",
        'type: "ReLU" relu_param { negative_slope: 0.25 }',
        ((5, 7),),
        lambda x: np.where(x > 0, x, 0.25 * x),
    ),
    Row(
        "relu-negative-slope",
        'type: "ReLU" relu_param { negative_slope: -0.5 }',
        ((5, 7),),
        lambda x: np.where(x > 0, x, -0.5 * x),
        in_place=False,
    ),
    Row("sigmoid", 'type: "Sigmoid"', ((2, 3, 4),), lambda x: 1 / (1 + np.exp(-x))),
    Row("tanh", 'type: "TanH"', ((6,),), lambda x: np.sinh(x) / np.cosh(x)),
    Row("dropout-test", 'type: "Dropout"', ((2, 3, 4),), lambda x: x, phases=(TEST,)),
    Row(
        "dropout-none",
        'type: "Dropout" dropout_param { dropout_ratio: 0 }',
        ((2, 3),),
        lambda x: x,
        phases=(TRAIN,),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_neuron_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_train_keeps_the_share_and_scales_it(in_place: bool) -> None:
    rig = make_rig(
        'type: "Dropout" dropout_param { dropout_ratio: 0.25 }', [np.ones(10_000)], in_place=in_place
    )
    (top,) = rig.forward()
    assert set(np.unique(top)) == {0, 1 / 0.75}
    deviation = np.sqrt(0.25 * 0.75 / 10_000)
    assert abs(np.mean(top > 0) - 0.75) < 5 * deviation
    rig.backward([np.full(10_000, 2.0)])
    np.testing.assert_allclose(rig.bottom[0].diff, 2 * top)


def _kept(rank: int, num_passes: int) -> Array:
    rig = make_rig('type: "Dropout"', [np.ones(100)], rank=rank)
    rig.layer.context.random.pass_index = num_passes
    return rig.forward()[0]


@pytest.mark.parametrize(
    ("rank", "num_passes", "is_same"), [(0, 0, True), (0, 1, False), (1, 0, False)], ids=str
)
def test_dropout_mask_depends_on_pass_and_rank(rank: int, num_passes: int, is_same: bool) -> None:
    assert np.array_equal(_kept(0, 0), _kept(rank, num_passes)) is is_same


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            'type: "Dropout" dropout_param { dropout_ratio: 1 }',
            "dropout_param.dropout_ratio must be at least 0 and below 1, got 1",
        ),
        (
            'type: "ReLU" relu_param { negative_slope: -0.5 }',
            "relu_param.negative_slope must be 0 or more in place, got -0.5",
        ),
    ],
)
def test_neuron_layer_mistake_is_one_sentence(layer: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(3)], in_place=True)
    assert str(caught.value) == message
