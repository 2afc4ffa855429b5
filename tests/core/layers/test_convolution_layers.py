"""Convolution and the names that forks have for its depthwise case."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.formulas import convolve, convolve_axis_2, convolve_both
from tests.core.layers.layer_harness import Row, cases, make_rig


def layer(type_name: str, fields: str) -> str:
    return f'type: "{type_name}" convolution_param {{ {fields} }}'


convolution = partial(layer, "Convolution")

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
        "convolution-without-spatial-axes",
        convolution("num_output: 4 kernel_size: 3"),
        ((2, 3),),
        lambda x, weight, bias: x @ weight.T + bias,
    ),
    Row(
        "convolution-depthwise",
        convolution("num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 4"),
        ((2, 4, 5, 6),),
        partial(convolve, stride=(2, 2), pad=(1, 1), group=4),
    ),
    Row(
        "convolution-depthwise-two-filters",
        convolution("num_output: 6 kernel_size: 3 dilation: 2 group: 3 bias_term: false"),
        ((2, 3, 6, 7),),
        partial(convolve, dilation=(2, 2), group=3),
    ),
    Row(
        "depthwise-convolution",
        layer("DepthwiseConvolution", "num_output: 3 group: 3 kernel_size: 3 pad: 1 dilation: 2"),
        ((2, 3, 5, 6),),
        partial(convolve, pad=(1, 1), dilation=(2, 2), group=3),
    ),
    Row(
        "convolution-depthwise-type",
        layer("ConvolutionDepthwise", "kernel_size: 3 stride: 2 pad: 1 bias_term: false"),
        ((2, 3, 5, 6),),
        partial(convolve, stride=(2, 2), pad=(1, 1), group=3),
    ),
    Row(
        "convolution-depthwise-type-counts-given",
        layer("ConvolutionDepthwise", "num_output: 3 group: 3 kernel_h: 2 kernel_w: 3"),
        ((2, 3, 5, 6),),
        partial(convolve, group=3),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_convolution_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


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
    (
        layer("DepthwiseConvolution", "num_output: 3 kernel_size: 1"),
        "convolution_param.group must be the bottom's channels (3) for DepthwiseConvolution, got 1; "
        "or use Convolution",
    ),
    (
        layer("DepthwiseConvolution", "num_output: 6 group: 3 kernel_size: 1"),
        "convolution_param.num_output must be the bottom's channels (3) for DepthwiseConvolution, got 6; "
        "or use Convolution",
    ),
    (
        layer("ConvolutionDepthwise", "num_output: 6 kernel_size: 1"),
        "convolution_param.num_output must be left out or be the bottom's channels (3) for "
        "ConvolutionDepthwise, got 6; or use Convolution",
    ),
    (
        layer("ConvolutionDepthwise", "group: 1 kernel_size: 1"),
        "convolution_param.group must be left out or be the bottom's channels (3) for ConvolutionDepthwise, "
        "got 1; or use Convolution",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_convolution_layer_mistake_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(text, [np.zeros((2, 3, 4, 5))])
    assert str(caught.value) == message


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
