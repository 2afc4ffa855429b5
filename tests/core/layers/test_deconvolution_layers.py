"""What turns a convolution round or lays it open: Deconvolution, Im2col."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.formulas import convolve
from tests.core.layers.layer_harness import Array, Row, cases, make_rig


def deconvolution(fields: str) -> str:
    return f'type: "Deconvolution" convolution_param {{ {fields} }}'


def im2col(fields: str) -> str:
    return f'type: "Im2col" convolution_param {{ {fields} }}'


def deconvolve(
    x: Array,
    weight: Array,
    bias: Array | float = 0.0,
    stride: tuple[int, ...] = (1, 1),
    pad: tuple[int, ...] = (0, 0),
    dilation: tuple[int, ...] = (1, 1),
    group: int = 1,
) -> Array:
    """Return what each value of x (N, C, …) spreads, one input place and filter tap after the other."""
    kernel = weight.shape[2:]
    full = [
        s * (n - 1) + d * (k - 1) + 1
        for n, s, d, k in zip(x.shape[2:], stride, dilation, kernel, strict=True)
    ]
    y = np.zeros((len(x), group * weight.shape[1], *full))
    per_group = x.shape[1] // group
    for c in range(x.shape[1]):
        outputs = slice(c // per_group * weight.shape[1], (c // per_group + 1) * weight.shape[1])
        for place in np.ndindex(*x.shape[2:]):
            for tap in np.ndindex(*kernel):
                at = [p * s + t * d for p, s, t, d in zip(place, stride, tap, dilation, strict=True)]
                y[:, outputs, *at] += x[:, c, *place][:, None] * weight[c, :, *tap]
    inside = [slice(p, size - p) for p, size in zip(pad, full, strict=True)]
    return y[:, :, *inside] + np.reshape(bias, (-1, *[1] * len(kernel)))


def lower(
    x: Array,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...] | None = None,
) -> Array:
    """Return the columns of x (N, C, …): convolutions with filters that pick one channel's one tap."""
    taps = int(np.prod(kernel))
    pick = np.eye(x.shape[1] * taps).reshape(-1, x.shape[1], *kernel)
    return convolve(x, pick, 0.0, stride, pad, dilation or (1,) * len(kernel))


ROWS = (
    Row("deconvolution", deconvolution("num_output: 4 kernel_size: 3"), ((2, 3, 3, 4),), deconvolve),
    Row(
        "deconvolution-strided-padded",
        deconvolution("num_output: 2 kernel_size: 4 stride: 2 pad: 1 engine: CUDNN"),
        ((2, 3, 3, 4),),
        partial(deconvolve, stride=(2, 2), pad=(1, 1)),
    ),
    Row(
        "deconvolution-rectangular-dilated",
        deconvolution(
            "num_output: 2 kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_w: 1 dilation: [1, 2]"
        ),
        ((2, 3, 3, 4),),
        partial(deconvolve, stride=(3, 1), pad=(0, 1), dilation=(1, 2)),
    ),
    Row(
        "deconvolution-groups",
        deconvolution("num_output: 6 kernel_size: 2 stride: 2 group: 2 bias_term: false"),
        ((2, 4, 3, 3),),
        partial(deconvolve, stride=(2, 2), group=2),
    ),
    Row(
        "deconvolution-depthwise",
        deconvolution("num_output: 3 kernel_size: 4 stride: 2 pad: 1 group: 3"),
        ((2, 3, 3, 4),),
        partial(deconvolve, stride=(2, 2), pad=(1, 1), group=3),
    ),
    Row(
        "deconvolution-one-to-many",
        deconvolution("num_output: 6 kernel_size: 3 stride: 2 group: 3"),
        ((2, 3, 3, 2),),
        partial(deconvolve, stride=(2, 2), group=3),
    ),
    Row(
        "deconvolution-1d",
        deconvolution("num_output: 2 kernel_size: 3 stride: 2"),
        ((2, 3, 4),),
        partial(deconvolve, stride=(2,), pad=(0,), dilation=(1,)),
    ),
    Row(
        "deconvolution-3d",
        deconvolution("num_output: 2 kernel_size: [2, 1, 3] stride: 2 pad: [0, 0, 1] force_nd_im2col: true"),
        ((1, 2, 2, 3, 3),),
        partial(deconvolve, stride=(2, 2, 2), pad=(0, 0, 1), dilation=(1, 1, 1)),
    ),
    Row(
        "deconvolution-axis",
        deconvolution("num_output: 3 kernel_size: 2 axis: 0"),
        ((2, 3, 4),),
        lambda x, weight, bias: deconvolve(x[None], weight, bias)[0],
        batches=(),  # axis 0 is that of the channels
    ),
    Row(
        "deconvolution-two-bottoms",
        deconvolution("num_output: 2 kernel_size: 2 stride: 2"),
        ((2, 3, 2, 4), (2, 3, 2, 4)),
        lambda x, other, *params: tuple(deconvolve(each, *params, stride=(2, 2)) for each in (x, other)),
        num_tops=2,
        gradient_tops=(0, 1),
    ),
    Row(
        "im2col",
        im2col("kernel_size: 3 stride: 2 pad: 1"),
        ((2, 3, 5, 6),),
        partial(lower, kernel=(3, 3), stride=(2, 2), pad=(1, 1)),
    ),
    Row(
        "im2col-dilated",
        im2col("kernel_h: 2 kernel_w: 3 dilation: [3, 2] force_nd_im2col: true"),
        ((2, 2, 5, 6),),
        partial(lower, kernel=(2, 3), stride=(1, 1), pad=(0, 0), dilation=(3, 2)),
    ),
    Row(
        "im2col-disjoint-with-a-rest",
        im2col("kernel_size: 2 stride: 3"),
        ((2, 2, 6, 7),),
        partial(lower, kernel=(2, 2), stride=(3, 3), pad=(0, 0)),
    ),
    Row(
        "im2col-pointwise",
        im2col("kernel_size: 1"),
        ((2, 2, 3, 4),),
        lambda x: x,
    ),
    Row(
        "im2col-1d",
        im2col("kernel_size: 2 pad: 1"),
        ((2, 3, 4),),
        partial(lower, kernel=(2,), stride=(1,), pad=(1,)),
    ),
    Row(
        "im2col-3d",
        im2col("kernel_size: 2 stride: [1, 2, 1] pad: [0, 1, 0]"),
        ((2, 2, 3, 3, 4),),
        partial(lower, kernel=(2, 2, 2), stride=(1, 2, 1), pad=(0, 1, 0)),
    ),
    Row(
        "im2col-axis",
        im2col("kernel_size: 2 axis: -2"),
        ((2, 3, 2, 4),),
        lambda x: lower(x.reshape(-1, 2, 4), (2,), (1,), (0,)).reshape(len(x), 3, 4, 3),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_deconvolution_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize("factor", [2, 3])
def test_deconvolution_with_the_bilinear_filler_enlarges_a_ramp_evenly(factor: int) -> None:
    """Inside, where all neighbours are there, a plane a·h + b·w + c stays one: a pixel covers factor × factor."""
    kernel, pad = 2 * factor - factor % 2, -(-(factor - 1) // 2)
    rig = make_rig(
        deconvolution(
            f"num_output: 2 group: 2 kernel_size: {kernel} stride: {factor} pad: {pad} bias_term: false "
            'weight_filler { type: "bilinear" }'
        ),
        [np.stack([np.add.outer(3.0 * np.arange(5), np.arange(6.0)), np.full((5, 6), 7.0)])[None]],
    )
    (y,) = rig.forward()
    assert y.shape == (1, 2, 5 * factor, 6 * factor)
    inner = slice(factor, -factor)
    rows, columns = ((np.arange(n * factor) + 0.5) / factor - 0.5 for n in (5, 6))
    np.testing.assert_allclose(
        y[0, 0, inner, inner], np.add.outer(3 * rows, columns)[inner, inner], rtol=1e-6
    )
    np.testing.assert_allclose(y[0, 1, inner, inner], 7, rtol=1e-6)


MISTAKES = [
    (
        deconvolution("num_output: 4 kernel_size: 1 group: 3"),
        "convolution_param.group must divide num_output (4), got 3",
    ),
    (
        deconvolution("num_output: 4 kernel_size: 2 pad: 3"),
        "convolution_param.pad must leave something of the output stride·(input − 1) + extent − 2·pad, got -1 with "
        "pad 3 and input 4 along spatial axis 0",
    ),
    (deconvolution("kernel_size: 2"), "convolution_param.num_output must be at least 1, got none"),
    (
        im2col("kernel_size: 1 axis: 3"),
        'bottom 0 "x0" must have spatial axes behind channel axis 3, got shape (2, 3, 4, 5)',
    ),
    (
        im2col("kernel_size: 5"),
        "convolution_param: the kernel must fit into the padded input, or the output is empty; got kernel 5, "
        "dilation 1, input 4 and pad 0 along spatial axis 0",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_deconvolution_layer_mistake_is_one_sentence(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(text, [np.zeros((2, 3, 4, 5))])
    assert str(caught.value) == message


def test_im2col_says_which_fields_of_a_convolution_have_no_effect(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rig = make_rig(im2col("kernel_size: 1 num_output: 5"), [np.ones((1, 3, 2, 2))])
    assert caplog.messages == [
        'layer "layer": convolution_param.num_output has no effect, Im2col has no weights'
    ]
    assert rig.forward()[0].shape == (1, 3, 2, 2)
