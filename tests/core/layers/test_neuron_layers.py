"""Layers that work on each value by itself: activations, powers and logarithms, limits, Dropout."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import TEST, TRAIN, Array, Row, cases, make_rig
from tests.core.net_builder import inputs, make_net


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


@np.vectorize(otypes=[float])
def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def per_channel(slope: Array, x: Array) -> Array:
    """Return the slopes (C) laid along axis 1 of x, or the single one."""
    return slope.reshape(-1, *[1] * (x.ndim - 2)) if slope.ndim else slope


def prelu(x: Array, slope: Array) -> Array:
    return np.where(x > 0, x, per_channel(slope, x) * x)


FAR = np.linspace(-20, 20, 24).reshape(2, 12)  # none at a kink

ROWS = (
    Row("abs-val", 'type: "AbsVal"', ((2, 3, 4),), lambda x: np.where(x < 0, -x, x)),
    Row("bnll", 'type: "BNLL"', ((2, 3, 4),), lambda x: np.log(1 + np.exp(x))),
    Row("bnll-far", 'type: "BNLL"', (FAR,), lambda x: np.log1p(np.exp(x))),
    Row(
        "clip",
        'type: "Clip" clip_param { min: -0.5 max: 0.75 }',
        ((5, 7),),
        lambda x: np.where(x < -0.5, -0.5, np.where(x > 0.75, 0.75, x)),
    ),
    Row("elu", 'type: "ELU"', ((2, 3, 4),), lambda x: np.where(x > 0, x, np.exp(x) - 1)),
    Row(
        "elu-alpha",
        'type: "ELU" elu_param { alpha: 0.25 }',
        (FAR,),
        lambda x: np.where(x > 0, x, 0.25 * (np.exp(x) - 1)),
    ),
    Row(
        "elu-negative-alpha",
        'type: "ELU" elu_param { alpha: -1.5 }',
        ((5, 7),),
        lambda x: np.where(x > 0, x, -1.5 * (np.exp(x) - 1)),
    ),
    Row("exp", 'type: "Exp"', ((2, 3, 4),), np.exp),
    Row("exp-scalar", 'type: "Exp"', ((),), np.exp, batches=()),
    Row(
        "exp-e",
        'type: "Exp" exp_param { scale: -0.5 shift: 2 }',
        ((5, 7),),
        lambda x: np.exp(2 - 0.5 * x),
    ),
    Row(
        "exp-base",
        'type: "Exp" exp_param { base: 2.5 scale: 2 shift: -0.5 }',
        ((5, 7),),
        lambda x: 2.5 ** (2 * x - 0.5),
    ),
    Row("log", 'type: "Log"', (np.abs(FAR),), np.log),
    Row("log-e", 'type: "Log" log_param { scale: -0.5 shift: 12 }', (FAR,), lambda x: np.log(12 - 0.5 * x)),
    Row(
        "log-base",
        'type: "Log" log_param { base: 0.5 scale: 0.25 shift: 6 }',
        (FAR,),
        lambda x: np.log(0.25 * x + 6) / np.log(0.5),
    ),
    Row("power", 'type: "Power"', ((2, 3, 4),), lambda x: x),
    Row("power-line", 'type: "Power" power_param { scale: -2 shift: 0.5 }', ((5, 7),), lambda x: 0.5 - 2 * x),
    Row(
        "power-square",
        'type: "Power" power_param { power: 2 scale: 0.5 shift: -1 }',
        ((5, 7),),
        lambda x: (0.5 * x - 1) * (0.5 * x - 1),
    ),
    Row("power-cube", 'type: "Power" power_param { power: 3 }', ((5, 7),), lambda x: x * x * x),
    Row("power-inverse", 'type: "Power" power_param { power: -1 }', (FAR,), lambda x: 1 / x),
    Row(
        "power-broken",
        'type: "Power" power_param { power: -1.75 scale: 0.25 shift: 6 }',
        (FAR,),
        lambda x: np.exp(-1.75 * np.log(0.25 * x + 6)),
    ),
    Row(
        "power-0",
        'type: "Power" power_param { power: 0 scale: 3 shift: 2 }',
        ((5, 7),),
        lambda x: np.ones_like(x),
    ),
    Row(
        "power-scale-0",
        'type: "Power" power_param { power: 3 scale: 0 shift: -2 }',
        ((5, 7),),
        lambda x: np.full_like(x, -8),
    ),
    Row("prelu", 'type: "PReLU"', ((2, 3, 4, 5),), prelu),
    Row("prelu-flat", 'type: "PReLU"', ((4, 6),), prelu),
    Row(
        "prelu-shared",
        'type: "PReLU" prelu_param { channel_shared: true }',
        ((2, 3, 4),),
        prelu,
        params=(-0.5,),
    ),
    Row("swish", 'type: "Swish"', ((2, 3, 4),), lambda x: x * sigmoid(x)),
    Row("swish-beta", 'type: "Swish" swish_param { beta: -1.5 }', (FAR,), lambda x: x * sigmoid(-1.5 * x)),
    Row(
        "threshold",
        'type: "Threshold" threshold_param { threshold: 0.5 }',
        ([[0.25, 0.5, 0.75], [-1.0, 1.0, 0.5]],),
        lambda x: np.where(x <= 0.5, 0, 1),
        in_place=False,  # there is no gradient to compare; see below
    ),
    Row("relu6", 'type: "ReLU6"', (FAR,), lambda x: np.clip(x, 0, 6)),
    Row(
        "relu6-slope",
        'type: "ReLU6" relu6_param { negative_slope: 0.25 }',
        (FAR,),
        lambda x: np.minimum(np.where(x > 0, x, 0.25 * x), 6),
    ),
    Row(
        "relu6-negative-slope",
        'type: "ReLU6" relu6_param { negative_slope: -0.5 }',
        (FAR,),
        lambda x: np.minimum(np.where(x > 0, x, -0.5 * x), 6),
    ),
    Row("hard-swish", 'type: "HardSwish"', (FAR / 4,), lambda x: x * np.clip(x + 3, 0, 6) / 6),
    Row("mish", 'type: "Mish"', ((2, 3, 4),), lambda x: x * np.tanh(np.log(1 + np.exp(x)))),
    Row("mish-far", 'type: "Mish"', (FAR,), lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    Row("gelu", 'type: "GELU"', ((2, 3, 4),), gelu),
    Row("gelu-far", 'type: "GELU"', (FAR,), gelu),
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
    ),
    Row("sigmoid", 'type: "Sigmoid"', ((2, 3, 4),), sigmoid),
    Row("tanh", 'type: "TanH"', ((6,),), lambda x: np.sinh(x) / np.cosh(x)),
    Row("dropout-test", 'type: "Dropout"', ((2, 3, 4),), lambda x: x, phases=(TEST,)),
    Row(
        "dropout-none",
        'type: "Dropout" dropout_param { dropout_ratio: 0 }',
        ((2, 3),),
        lambda x: x,
        phases=(TRAIN,),
    ),
    Row(
        "dropout-unscaled-test",
        'type: "Dropout" dropout_param { dropout_ratio: 0.75 scale_train: false }',
        ((2, 3, 4),),
        lambda x: 0.25 * x,
        phases=(TEST,),
    ),
    Row(
        "dropout-scaled-test",
        'type: "Dropout" dropout_param { dropout_ratio: 0.75 scale_train: true }',
        ((2, 3, 4),),
        lambda x: x,
        phases=(TEST,),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_neuron_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize(
    ("layer", "x", "slopes"),
    [
        ('type: "AbsVal"', [-2, 0, 3], [-1, 0, 1]),
        ('type: "Clip" clip_param { min: -1 max: 2 }', [-1.5, -1, 2, 2.5], [0, 1, 1, 0]),
        ('type: "ELU" elu_param { alpha: 0.5 }', [0], [0.5]),
        ('type: "ReLU6"', [-1, 0, 5, 6, 7], [0, 0, 1, 0, 0]),
        ('type: "ReLU6" relu6_param { negative_slope: 0.5 }', [-1, 0, 6], [0.5, 0.5, 0]),
        ('type: "ReLU6" relu6_param { negative_slope: -0.5 }', [-4, -12, -13], [-0.5, 0, 0]),
        ('type: "HardSwish"', [-4, -3, 0, 3, 4], [0, 0, 0.5, 1, 1]),
        ('type: "Power" power_param { power: 3 scale: 2 shift: -2 }', [1, 2], [0, 24]),
        ('type: "Power" power_param { power: 2 }', [0], [0]),
        ('type: "PReLU"', [[-1, 0, 1]], [[0.25, 0.25, 1]]),
    ],
)
def test_neuron_layer_gradient_at_a_kink_is_caffe_s(layer: str, x: list[float], slopes: list[float]) -> None:
    rig = make_rig(layer, [x])
    rig.forward()
    rig.backward([np.full(np.shape(x), 2.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, 2 * np.array(slopes))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["BNLL", "ELU", "Swish", "Mish", "GELU", "HardSwish", "ReLU6"])
def test_neuron_layer_far_out_overflows_nowhere(name: str, dtype: type) -> None:
    rig = make_rig(f'type: "{name}"', [[-1e4, -300.0, 300.0, 1e4]], dtype=dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        top = rig.forward()[0]
        rig.backward([np.ones(4)])
    left, right = (-1.0 if name == "ELU" else 0.0), ([6.0, 6.0] if name == "ReLU6" else [300.0, 1e4])
    np.testing.assert_allclose(top, [left, left, *right], atol=1e-30)
    slope = 0.0 if name == "ReLU6" else 1.0
    np.testing.assert_allclose(rig.bottom[0].diff, [0, 0, slope, slope], atol=1e-30)


def test_threshold_in_place_overwrites_its_bottom() -> None:
    rig = make_rig('type: "Threshold"', [[-1.0, 0.0, 2.0]], in_place=True)
    np.testing.assert_array_equal(rig.forward()[0], [0, 0, 1])


NET = (
    inputs(x=(2, 3), t=(2, 4))
    + """
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 4 } }
    layer { name: "f" bottom: "a" top: "%s" type: "%s" }
    layer { name: "loss" type: "EuclideanLoss" bottom: "%s" bottom: "t" top: "loss" }"""
)


@pytest.mark.parametrize(
    ("top", "layer_type", "message"),
    [
        ("b", "Threshold", "Threshold has no gradient, but what it reads is learned through it"),
        ("a", "AbsVal", 'can\'t work in place; give its top another name than its bottom "a"'),
    ],
)
def test_neuron_layer_that_a_net_can_t_learn_through_is_refused(
    top: str, layer_type: str, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_net(NET % (top, layer_type, top))
    assert str(caught.value).endswith(f'layer "f": {message}')


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("field", "factor"), [("", 1 / 0.75), ("scale_train: false", 1.0)])
def test_dropout_train_keeps_the_share_and_scales_it(in_place: bool, field: str, factor: float) -> None:
    layer = f'type: "Dropout" dropout_param {{ dropout_ratio: 0.25 {field} }}'
    rig = make_rig(layer, [np.ones(10_000)], in_place=in_place)
    (top,) = rig.forward()
    assert set(np.unique(top)) == {0, factor}
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


MISTAKES = [
    (
        'type: "Dropout" dropout_param { dropout_ratio: 1 }',
        (3,),
        "dropout_param.dropout_ratio must be at least 0 and below 1, got 1",
    ),
    (
        'type: "Exp" exp_param { base: 0 }',
        (3,),
        "exp_param.base must be greater than 0, or -1 for e, got 0",
    ),
    (
        'type: "Log" log_param { base: -2 }',
        (3,),
        "log_param.base must be greater than 0, or -1 for e, got -2",
    ),
    (
        'type: "Log" log_param { base: 1 }',
        (3,),
        "log_param.base must not be 1: there is no logarithm to that base",
    ),
    (
        'type: "Power" power_param { power: -2 scale: 0 }',
        (3,),
        "power_param: shift^power must be a number with scale 0, got shift 0 and power -2",
    ),
    (
        'type: "Power" power_param { power: 0.5 scale: 0 shift: -1 }',
        (3,),
        "power_param: shift^power must be a number with scale 0, got shift -1 and power 0.5",
    ),
    ('type: "PReLU"', (3,), 'bottom 0 "x0" must have at least 2 axes (N, C, …), got shape (3,)'),
]


@pytest.mark.parametrize(("layer", "shape", "message"), MISTAKES, ids=[row[2] for row in MISTAKES])
def test_neuron_layer_mistake_is_one_sentence(layer: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape)])
    assert str(caught.value) == message


def test_prelu_starts_at_a_quarter_unless_filled_otherwise() -> None:
    filled = 'type: "PReLU" prelu_param { filler { value: 0.5 } }'
    slopes = [make_rig(layer, [np.zeros((2, 3))]).layer.blobs[0].data for layer in ('type: "PReLU"', filled)]
    np.testing.assert_array_equal(slopes, [[0.25] * 3, [0.5] * 3])


def test_prelu_whose_channels_change_names_both_numbers() -> None:
    rig = make_rig('type: "PReLU"', [np.zeros((2, 3))])
    with pytest.raises(UserError) as caught:
        rig.feed([np.zeros((2, 4))])
    assert str(caught.value) == "the bottom must keep 3 channels at axis 1, got shape (2, 4)"
