"""Layers that look at neighbourhoods: Convolution, Pooling, LRN."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.formulas import (
    convolve,
    convolve_axis_2,
    convolve_both,
    normalise_across,
    normalise_within,
    pool,
    pooled,
)
from tests.core.layers.layer_harness import Row, cases, make_rig


def convolution(fields: str) -> str:
    return f'type: "Convolution" convolution_param {{ {fields} }}'


def pooling(fields: str) -> str:
    return f'type: "Pooling" pooling_param {{ {fields} }}'


ROWS = (
    Row("convolution", convolution("num_output: 4 kernel_size: 3"), ((2, 3, 5, 6),), convolve),
    Row(
        "convolution-no-bias-strided",
        convolution("num_output: 4 kernel_size: 2 stride: 2 pad: 1 bias_term: false"),
        ((2, 3, 5, 6),),
        partial(convolve, stride=(2, 2), pad=(1, 1)),
    ),
    Row(
        "convolution-groups-dilated",
        convolution("num_output: 4 kernel_size: 2 dilation: 2 group: 2 force_nd_im2col: true"),
        ((2, 6, 5, 6),),
        partial(convolve, dilation=(2, 2), group=2),
    ),
    Row(
        "convolution-rectangular",
        convolution("num_output: 2 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 2"),
        ((2, 3, 5, 6),),
        partial(convolve, stride=(1, 2), pad=(2, 0)),
    ),
    Row(
        "convolution-per-axis",
        convolution("num_output: 2 kernel_size: 3 kernel_size: 1 pad: 0 pad: 2 stride: 2 dilation: [1, 3]"),
        ((2, 3, 5, 6),),
        partial(convolve, stride=(2, 2), pad=(0, 2)),
    ),
    Row(
        "convolution-1d",
        convolution("num_output: 3 kernel_size: 2"),
        ((2, 3, 7),),
        partial(convolve, stride=(1,), pad=(0,), dilation=(1,)),
    ),
    Row(
        "convolution-3d",
        convolution("num_output: 2 kernel_size: 2 stride: 2 pad: 1"),
        ((2, 2, 3, 4, 5),),
        partial(convolve, stride=(2, 2, 2), pad=(1, 1, 1), dilation=(1, 1, 1)),
    ),
    Row(
        "convolution-axis",
        convolution("num_output: 3 kernel_size: 2 axis: -2"),
        ((2, 2, 3, 5),),
        convolve_axis_2,
    ),
    Row(
        "convolution-two-bottoms",
        convolution("num_output: 2 kernel_size: 2"),
        ((2, 3, 4, 4), (2, 3, 4, 4)),
        convolve_both,
        num_tops=2,
        gradient_tops=(0, 1),
    ),
    Row(
        "pooling-max",
        pooling("kernel_size: 2 stride: 2"),
        ((2, 3, 4, 6),),
        partial(pooled, sizes=(2, 3), kernel=(2, 2), stride=(2, 2)),
    ),
    Row(
        "pooling-max-ceil-mask",
        pooling("kernel_size: 3 stride: 2"),
        ((2, 3, 6, 6),),
        partial(pool, sizes=(3, 3), kernel=(3, 3), stride=(2, 2)),
        num_tops=2,
    ),
    Row(
        "pooling-max-floor",
        pooling("kernel_size: 3 stride: 2 round_mode: FLOOR"),
        ((2, 3, 6, 6),),
        partial(pooled, sizes=(2, 2), kernel=(3, 3), stride=(2, 2)),
    ),
    Row(
        "pooling-max-rectangular-padded",
        pooling("kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0"),
        ((2, 3, 4, 5),),
        partial(pooled, sizes=(4, 3), kernel=(3, 2), stride=(1, 2), pad=(1, 0)),
    ),
    Row(
        # ceil((5 + 2 − 2)/2) + 1 = 4 windows, of which the last would start at 6 ≥ 5 + 1 and is left out
        "pooling-max-last-window-left-out",
        pooling("kernel_size: 2 stride: 2 pad: 1"),
        ((2, 1, 5, 5),),
        partial(pooled, sizes=(3, 3), kernel=(2, 2), stride=(2, 2), pad=(1, 1)),
    ),
    Row(
        "pooling-average-padded",
        pooling("pool: AVE kernel_size: 3 stride: 2 pad: 1"),
        ((2, 3, 6, 7),),
        partial(pooled, sizes=(4, 4), kernel=(3, 3), stride=(2, 2), pad=(1, 1), average=True),
    ),
    Row(
        # ceil((2 − 3)/2) + 1 = 1 window, clipped to the input
        "pooling-average-kernel-larger-than-input",
        pooling("pool: AVE kernel_size: 3 stride: 2"),
        ((2, 3, 2, 2),),
        partial(pooled, sizes=(1, 1), kernel=(3, 3), stride=(2, 2), average=True),
    ),
    Row(
        "pooling-global-average",
        pooling("pool: AVE global_pooling: true"),
        ((2, 3, 4, 5),),
        lambda x: x.mean(axis=(2, 3), keepdims=True),
    ),
    Row(
        "pooling-global-max",
        pooling("global_pooling: true"),
        ((2, 3, 4, 5),),
        lambda x: x.max(axis=(2, 3), keepdims=True),
    ),
    Row(
        "lrn-across",
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }',
        ((2, 5, 2, 3),),
        partial(normalise_across, n=3, alpha=0.5, beta=0.75, k=2),
    ),
    Row(
        "lrn-within",
        'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 norm_region: WITHIN_CHANNEL }',
        ((2, 2, 4, 5),),
        partial(normalise_within, n=3, alpha=0.5, beta=0.75),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_vision_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_global_pooling_follows_the_size_of_its_input() -> None:
    rig = make_rig(pooling("pool: AVE global_pooling: true"), [np.ones((1, 2, 3, 3))])
    rig.feed([np.full((1, 2, 5, 7), 4.0)])
    np.testing.assert_allclose(rig.forward()[0], np.full((1, 2, 1, 1), 4.0))


def test_max_pooling_of_equal_values_gives_the_gradient_to_the_first() -> None:
    rig = make_rig(pooling("kernel_size: 2 stride: 2"), [np.zeros((1, 1, 2, 2))])
    rig.forward()
    rig.backward([np.full((1, 1, 1, 1), 3.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, [[[[3, 0], [0, 0]]]])


def test_pooling_window_beyond_the_input_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rig = make_rig(pooling("pool: AVE kernel_size: 1 stride: 2"), [np.ones((1, 1, 4, 4))])
    assert "the last window lies beyond the input" in caplog.text
    np.testing.assert_array_equal(rig.forward()[0], [[[[1, 1, 0], [1, 1, 0], [0, 0, 0]]]])


BOTH = "must not be given together with"
MISTAKES = [
    (convolution("kernel_size: 3"), "convolution_param.num_output must be at least 1, got none"),
    (convolution("num_output: 2"), "convolution_param.kernel_size must be given, got none"),
    (
        convolution("num_output: 2 kernel_size: 0"),
        "convolution_param.kernel_size must be at least 1, got 0",
    ),
    (
        convolution("num_output: 2 kernel_size: 2 kernel_h: 3 kernel_w: 3"),
        f"convolution_param.kernel_size {BOTH} kernel_h and kernel_w, got both",
    ),
    (
        convolution("num_output: 2 kernel_h: 3"),
        "convolution_param.kernel_h and kernel_w must be given together, got kernel_h alone",
    ),
    (
        convolution("num_output: 2 kernel_size: [1, 2, 3]"),
        "convolution_param.kernel_size must be given once or once per spatial axis (2), got 3 values",
    ),
    (
        convolution("num_output: 2 kernel_h: 1 kernel_w: 1 axis: 2"),
        "convolution_param.kernel_h and kernel_w are for 2 spatial axes, got 1; use kernel_size",
    ),
    (
        convolution("num_output: 2 kernel_size: 1 stride: 0"),
        "convolution_param.stride must be at least 1, got 0",
    ),
    (
        convolution("num_output: 4 kernel_size: 1 group: 2"),
        "convolution_param.group must divide the bottom's channels (3), got 2",
    ),
    (
        convolution("num_output: 4 kernel_size: 1 group: 3"),
        "convolution_param.group must divide num_output (4), got 3",
    ),
    (
        convolution("num_output: 4 kernel_size: 1 axis: 4"),
        "convolution_param.axis must be -4 to 3 for 4 axes, got 4",
    ),
    (
        convolution("num_output: 2 kernel_size: 4 dilation: 2 pad: 1 stride: 3"),
        "convolution_param: the kernel must fit into the padded input, or the output is empty; got kernel 4, "
        "dilation 2, input 4 and pad 1 along spatial axis 0",
    ),
    (pooling("stride: 2"), "pooling_param.kernel_size must be given, got none"),
    (
        pooling("kernel_size: 2 kernel_h: 2 kernel_w: 2"),
        f"pooling_param.kernel_size {BOTH} kernel_h and kernel_w, got both",
    ),
    (
        pooling("kernel_size: 2 pad_h: 1"),
        "pooling_param.pad_h and pad_w must be given together, got pad_h alone",
    ),
    (
        pooling("kernel_size: 2 pad: 2"),
        "pooling_param.pad must be below the kernel's size, got pad (2, 2) and kernel (2, 2)",
    ),
    (
        pooling("kernel_size: 9"),
        "pooling_param: the kernel must fit into the padded input, or the output is empty; got kernel 9, "
        "dilation 1, input 4 and pad 0 along spatial axis 0",
    ),
    (
        pooling("kernel_size: 2 global_pooling: true"),
        "pooling_param.kernel_size must be left out with global_pooling: true",
    ),
    (
        pooling("global_pooling: true pad: 1"),
        "pooling_param must have stride 1 and pad 0 with global_pooling, got (1, 1) and (1, 1)",
    ),
    (
        pooling("pool: STOCHASTIC kernel_size: 2"),
        "pooling_param.pool must be MAX or AVE, got STOCHASTIC; it comes with a later release",
    ),
    ('type: "LRN" lrn_param { local_size: 4 }', "lrn_param.local_size must be odd, got 4"),
]


@pytest.mark.parametrize(("layer", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_vision_layer_mistake_is_one_sentence(layer: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros((2, 3, 4, 5))])
    assert str(caught.value) == message


@pytest.mark.parametrize("layer", [pooling("kernel_size: 2"), 'type: "LRN"'])
def test_vision_layer_of_three_axes_is_refused(layer: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros((2, 3, 4))])
    assert str(caught.value) == 'bottom 0 "x0" must have 4 axes (N, C, H, W), got shape (2, 3, 4)'


def test_average_pooling_with_a_second_top_is_refused() -> None:
    with pytest.raises(UserError, match="a second top .* is for MAX pooling only, got AVE"):
        make_rig(pooling("pool: AVE kernel_size: 2"), [np.zeros((1, 1, 4, 4))], num_tops=2)


def test_convolution_of_unequal_bottoms_names_both() -> None:
    shapes = (2, 3, 4, 4), (2, 3, 4, 5)
    with pytest.raises(UserError) as caught:
        make_rig(
            convolution("num_output: 2 kernel_size: 2"), [np.zeros(shape) for shape in shapes], num_tops=2
        )
    assert str(caught.value) == (
        'all bottoms must have one shape, got (2, 3, 4, 4) from bottom 0 "x0" '
        'and (2, 3, 4, 5) from bottom 1 "x1"'
    )


def test_convolution_of_other_channels_names_the_weight() -> None:
    rig = make_rig(convolution("num_output: 2 kernel_size: 2"), [np.zeros((2, 3, 4, 4))])
    with pytest.raises(UserError) as caught:
        rig.feed([np.zeros((2, 5, 4, 4))])
    assert str(caught.value) == (
        "the bottom must have 4 axes and 3 channels at axis 1, as the weight (2, 3, 2, 2) was made for, "
        "got shape (2, 5, 4, 4)"
    )
