"""Layers that compute on blobs of any shape: InnerProduct, BatchNorm, Scale, Bias, Softmax, Eltwise."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import TEST, TRAIN, Array, Row, cases, make_rig


def inner_product(x: Array, weight: Array, bias: Array | float = 0.0) -> Array:
    return np.einsum("ni,ki->nk", x.reshape(len(x), weight.shape[1]), weight) + bias


def normalise(x: Array, *sums: Array, eps: float = 0.25) -> Array:
    """Return x by its own mean and biased variance per channel (axis 1)."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps)


def normalise_globally(x: Array, mean_sum: Array, variance_sum: Array, factor: Array) -> Array:
    columns = (-1, *[1] * (x.ndim - 2))
    mean, variance = (mean_sum / factor).reshape(columns), (variance_sum / factor).reshape(columns)
    return (x - mean) / np.sqrt(variance + 0.25)


def softmax(x: Array, axis: int) -> Array:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def batch_norm(fields: str = "") -> str:
    return f'type: "BatchNorm" batch_norm_param {{ eps: 0.25 {fields} }}'


def scale(fields: str) -> str:
    return f'type: "Scale" scale_param {{ {fields} }}'


def bias(fields: str) -> str:
    return f'type: "Bias" bias_param {{ {fields} }}'


def eltwise(fields: str) -> str:
    return f'type: "Eltwise" eltwise_param {{ {fields} }}'


THREE = ((2, 3, 4),) * 3
SUMS = ([1.0, -2.0, 3.0], [2.0, 6.0, 4.0], [2.0])  # of mean, variance and factor over three channels

ROWS = (
    Row(
        "inner-product",
        'type: "InnerProduct" inner_product_param { num_output: 5 }',
        ((2, 3, 4),),
        inner_product,
    ),
    Row(
        "inner-product-no-bias",
        'type: "InnerProduct" inner_product_param { num_output: 5 bias_term: false }',
        ((2, 6),),
        inner_product,
    ),
    Row(
        "inner-product-transposed",
        'type: "InnerProduct" inner_product_param { num_output: 5 transpose: true }',
        ((2, 6),),
        lambda x, weight, bias: x @ weight + bias,
    ),
    Row(
        "inner-product-axis",
        'type: "InnerProduct" inner_product_param { num_output: 5 axis: -1 }',
        ((2, 3, 4),),
        lambda x, weight, bias: np.einsum("nck,fk->ncf", x, weight) + bias,
    ),
    Row(
        "batch-norm-train",
        batch_norm(),
        ((4, 3, 2, 5),),
        normalise,
        params=SUMS,
        phases=(TRAIN,),
        batches=(2,),
    ),
    Row(
        "batch-norm-train-flat",
        batch_norm("use_global_stats: false"),
        ((6, 3),),
        normalise,
        params=SUMS,
        batches=(3,),
    ),
    Row("batch-norm-test", batch_norm(), ((2, 3, 4),), normalise_globally, params=SUMS, phases=(TEST,)),
    Row(
        "batch-norm-global",
        batch_norm("use_global_stats: true"),
        ((2, 3, 4, 5),),
        normalise_globally,
        params=SUMS,
    ),
    Row(
        "batch-norm-one-axis",
        batch_norm("use_global_stats: false"),
        ((5,),),
        lambda x, *sums: normalise(x.reshape(-1, 1)).reshape(-1),
        params=([0.0], [0.0], [0.0]),
        batches=(2,),
    ),
    Row("scale", scale(""), ((2, 3, 4, 5),), lambda x, s: x * s[:, None, None]),
    Row(
        "scale-bias",
        scale("axis: 1 num_axes: 2 bias_term: true"),
        ((2, 3, 4, 5),),
        lambda x, s, b: x * s[:, :, None] + b[:, :, None],
    ),
    Row("scale-to-the-end", scale("axis: -2 num_axes: -1"), ((2, 3, 4),), lambda x, s: x * s),
    Row("scale-scalar", scale("num_axes: 0 bias_term: true"), ((2, 3),), lambda x, s, b: x * s + b),
    Row(
        "scale-two-bottoms",
        scale("bias_term: true"),
        ((2, 3, 4, 5), (3, 4)),
        lambda x, s, b: x * s[:, :, None] + b[:, :, None],
        batches=(),
    ),
    Row(
        "scale-two-bottoms-axis-0",
        scale("axis: 0"),
        ((2, 3, 4, 5), (2, 3)),
        lambda x, s: x * s[:, :, None, None],
    ),
    Row("scale-by-scalar-bottom", scale(""), ((2, 3), ()), lambda x, s: x * s, batches=()),
    Row("bias", bias(""), ((2, 3, 4, 5),), lambda x, b: x + b[:, None, None]),
    Row("bias-axes", bias("axis: 1 num_axes: 2"), ((2, 3, 4, 5),), lambda x, b: x + b[:, :, None]),
    Row("bias-to-the-end", bias("axis: -2 num_axes: -1"), ((2, 3, 4),), lambda x, b: x + b),
    Row("bias-scalar", bias("num_axes: 0"), ((2, 3),), lambda x, b: x + b),
    Row(
        "bias-two-bottoms",
        bias(""),
        ((2, 3, 4, 5), (3, 4)),
        lambda x, b: x + b[:, :, None],
        batches=(),
    ),
    Row("bias-two-bottoms-axis-0", bias("axis: 0"), ((2, 3, 4), (2, 3)), lambda x, b: x + b[:, :, None]),
    Row("bias-by-scalar-bottom", bias(""), ((2, 3), ()), lambda x, b: x + b, batches=()),
    Row("softmax", 'type: "Softmax"', ((2, 5, 3, 4),), partial(softmax, axis=1)),
    Row("softmax-axis", 'type: "Softmax" softmax_param { axis: -1 }', ((2, 5, 3),), partial(softmax, axis=2)),
    Row("eltwise-sum", 'type: "Eltwise"', THREE, lambda x, y, z: x + y + z),
    Row(
        "eltwise-sum-weighted",
        eltwise("operation: SUM coeff: [0.5, -2, 1]"),
        THREE,
        lambda x, y, z: 0.5 * x - 2 * y + z,
    ),
    Row("eltwise-prod", eltwise("operation: PROD"), THREE, lambda x, y, z: x * y * z),
    Row(
        "eltwise-prod-unstable",
        eltwise("operation: PROD stable_prod_grad: false"),
        THREE,
        lambda x, y, z: x * y * z,
    ),
    Row("eltwise-max", eltwise("operation: MAX"), THREE, lambda *xs: np.max(xs, axis=0)),
    Row(
        "eltwise-max-scalars",
        eltwise("operation: MAX"),
        ((),) * 3,
        lambda *xs: np.max(xs, axis=0),
        batches=(),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_arithmetic_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_batch_norm_train_updates_its_running_sums() -> None:
    rig = make_rig(batch_norm("moving_average_fraction: 0.5"), [np.zeros((2, 2))])
    for blob, values in zip(rig.layer.blobs, ([4.0, 6.0], [8.0, 2.0], [3.0]), strict=True):
        blob.data[...] = values
    rig.feed([np.array([[1.0, 5.0], [3.0, 5.0]])])
    rig.forward()
    # means 2 and 5; unbiased variances 2 and 0
    for blob, values in zip(rig.layer.blobs, ([4.0, 8.0], [6.0, 1.0], [2.5]), strict=True):
        np.testing.assert_allclose(blob.data, values)


def test_batch_norm_train_of_one_value_per_channel_keeps_the_biased_variance() -> None:
    rig = make_rig(batch_norm(), [np.array([[2.0, 4.0]])])
    rig.forward()
    np.testing.assert_array_equal(rig.layer.blobs[1].data, [0, 0])


def test_batch_norm_test_that_has_seen_nothing_takes_mean_and_variance_0() -> None:
    rig = make_rig(batch_norm(), [np.full((2, 3), 1.5)], phase=TEST)
    rig.layer.blobs[0].data[...] = 5  # over a factor of 0
    np.testing.assert_allclose(rig.forward()[0], np.full((2, 3), 3.0))  # 1.5 / sqrt(0.25)


def test_batch_norm_with_three_old_param_blocks_is_accepted() -> None:
    rig = make_rig(batch_norm() + " param { } param { } param { lr_mult: 1 }", [np.zeros((2, 3))])
    assert rig.layer.num_statistics == len(rig.layer.blobs) == 3


def test_bias_starts_at_0_unless_filled_otherwise() -> None:
    layers = (bias(""), bias("filler { value: 2 }"))
    biases = [make_rig(layer, [np.zeros((2, 3))]).layer.blobs[0].data for layer in layers]
    np.testing.assert_array_equal(biases, [[0] * 3, [2] * 3])


def test_softmax_of_large_scores_is_finite() -> None:
    rig = make_rig('type: "Softmax"', [[[1e4, 1e4, -1e4]]])
    np.testing.assert_allclose(rig.forward()[0], [[0.5, 0.5, 0]])


def test_eltwise_max_of_equal_values_gives_the_gradient_to_the_second() -> None:
    rig = make_rig(eltwise("operation: MAX"), [[1.0], [1.0], [1.0]])
    rig.forward()
    rig.backward([np.array([5.0])])
    assert [float(blob.diff[0]) for blob in rig.bottom] == [0, 5, 0]


def test_eltwise_max_with_coeff_says_that_it_plays_no_part(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rig = make_rig(eltwise("operation: MAX coeff: [-1, -1]"), [[1.0], [2.0]])
    assert 'layer "layer": eltwise_param.coeff plays no part in MAX' in caplog.text
    np.testing.assert_array_equal(rig.forward()[0], [2.0])


MISTAKES = [
    (
        'type: "InnerProduct"',
        [(2, 3)],
        "inner_product_param.num_output must be at least 1, got none",
    ),
    (
        'type: "InnerProduct" inner_product_param { num_output: 5 axis: 2 }',
        [(2, 3)],
        "inner_product_param.axis must be -2 to 1 for 2 axes, got 2",
    ),
    (
        'type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 2 }',
        [(2, 3)],
        "param.lr_mult must be 0: the params of BatchNorm are running statistics, got 2; "
        "learn a scale in a Scale layer behind it",
    ),
    (
        scale("axis: 1 num_axes: 3"),
        [(2, 3, 4)],
        "scale_param.num_axes must be -1 (all) to 2 from axis 1 of (2, 3, 4), got 3",
    ),
    (scale(""), [(2, 3, 4), (3, 5)], "shape (3, 5) must be that of the bottom (2, 3, 4) from axis 1 on"),
    (
        bias("axis: 0 num_axes: 4"),
        [(2, 3, 4)],
        "bias_param.num_axes must be -1 (all) to 3 from axis 0 of (2, 3, 4), got 4",
    ),
    (bias("axis: 2"), [(2, 3)], "bias_param.axis must be -2 to 1 for 2 axes, got 2"),
    (bias(""), [(2, 3, 4), (3, 5)], "shape (3, 5) must be that of the bottom (2, 3, 4) from axis 1 on"),
    (
        'type: "Softmax" softmax_param { axis: 3 }',
        [(2, 3)],
        "softmax_param.axis must be -2 to 1 for 2 axes, got 3",
    ),
    (
        'type: "Eltwise"',
        [(2, 3), (3, 2)],
        'all bottoms must have one shape, got (2, 3) from bottom 0 "x0" and (3, 2) from bottom 1 "x1"',
    ),
    (
        eltwise("coeff: 1"),
        [(2,), (2,)],
        "eltwise_param.coeff must be given once per bottom (2) or not at all, got 1",
    ),
    (
        eltwise("operation: PROD coeff: [1, 2]"),
        [(2,), (2,)],
        "eltwise_param.coeff must be left out for PROD: it weighs the terms of SUM",
    ),
]


@pytest.mark.parametrize(("layer", "shapes", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_arithmetic_layer_mistake_is_one_sentence(
    layer: str, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape) for shape in shapes])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layer", "first", "then", "message"),
    [
        (
            'type: "InnerProduct" inner_product_param { num_output: 5 }',
            (2, 3),
            (2, 4),
            "the bottom must have 3 values from axis 1 on, as the weight (5, 3) was made for, "
            "got 4 in shape (2, 4)",
        ),
        (bias(""), (2, 3), (2, 4), "shape (3,) must be that of the bottom (2, 4) from axis 1 on"),
        (batch_norm(), (2, 3), (2, 4), "the bottom must keep 3 channels at axis 1, got shape (2, 4)"),
    ],
)
def test_arithmetic_layer_whose_params_no_longer_fit_names_both(
    layer: str, first: tuple[int, ...], then: tuple[int, ...], message: str
) -> None:
    rig = make_rig(layer, [np.zeros(first)])
    with pytest.raises(UserError) as caught:
        rig.feed([np.zeros(then)])
    assert str(caught.value) == message


def test_scale_whose_factor_outgrows_its_bias_says_so() -> None:
    rig = make_rig(scale("axis: 0 bias_term: true"), [np.ones((2, 3)), np.ones(2)])
    with pytest.raises(UserError, match=r"keep the shape of the learned bias, \(2,\), got \(4,\)"):
        rig.feed([np.ones((4, 3)), np.ones(4)])
