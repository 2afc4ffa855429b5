"""Layers that look at neighbourhoods: Pooling, SPP, LRN. Convolutions are in test_convolution_layers.py."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import ItemError, UserError
from dtrain.core.random_streams import RandomStreams
from dtrain.proto import caffe_pb2
from tests.core.layers.formulas import (
    normalise_across,
    normalise_within,
    pool,
    pooled,
)
from tests.core.layers.layer_harness import TEST, TRAIN, Array, Row, cases, make_rig


def pooling(fields: str) -> str:
    return f'type: "Pooling" pooling_param {{ {fields} }}'


def spp(fields: str) -> str:
    return f'type: "SPP" spp_param {{ {fields} }}'


def pyramid(x: Array, height: int, average: bool = False) -> Array:
    """Return SPP of x, level by level."""
    parts = []
    for num_windows in (2**level for level in range(height)):
        kernel = tuple(math.ceil(size / num_windows) for size in x.shape[2:])
        rests = [k * num_windows - size for k, size in zip(kernel, x.shape[2:], strict=True)]
        pad = tuple((rest + 1) // 2 for rest in rests)
        level = pooled(x, sizes=(num_windows,) * 2, kernel=kernel, stride=kernel, pad=pad, average=average)
        parts.append(level.reshape(len(x), level.shape[1] * num_windows**2))
    return np.concatenate(parts, axis=1)


def stochastic(x: Array, kernel: int, stride: int, size: tuple[int, int], phase: int) -> Array:
    """Return STOCHASTIC pooling of x, window by window; in TRAIN with the numbers of the harness' layer."""
    y = np.zeros((*x.shape[:2], *size))
    random = RandomStreams(seed=1).for_pass("layer").random(y.shape, dtype=np.float32).astype(np.float64)
    for n, c, p, q in np.ndindex(*y.shape):
        units = x[n, c, p * stride : p * stride + kernel, q * stride : q * stride + kernel].ravel()
        if phase == TEST:
            y[n, c, p, q] = (units**2).sum() / units.sum()
        else:
            y[n, c, p, q] = units[np.searchsorted(np.cumsum(units) / units.sum(), 1 - random[n, c, p, q])]
    return y


def _halves(x: Array) -> Array:
    quarters = x.reshape(len(x), 3, 2, x.shape[2] // 2, 2, x.shape[3] // 2)
    return (quarters**2).sum(axis=(3, 5)) / quarters.sum(axis=(3, 5))


POSITIVE = np.random.default_rng(5).uniform(0.5, 2, (2, 3, 5, 6))

ROWS = (
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
    *(
        Row(
            f"pooling-stochastic-{caffe_pb2.Phase.Name(phase)}-{name}",
            pooling(f"pool: STOCHASTIC {fields}"),
            (POSITIVE,),
            partial(stochastic, kernel=kernel, stride=stride, size=size, phase=phase),
            phases=(phase,),
        )
        for phase in (TRAIN, TEST)
        for name, fields, kernel, stride, size in (
            ("clipped", "kernel_size: 2 stride: 2", 2, 2, (3, 3)),
            ("overlapping", "kernel_size: 3 stride: 1", 3, 1, (3, 4)),
            ("global", "global_pooling: true", 6, 1, (1, 1)),
        )
    ),
    Row(
        "spp-one-level",
        spp("pyramid_height: 1"),
        ((2, 3, 4, 5),),
        lambda x: x.max(axis=(2, 3), keepdims=True),
    ),
    Row("spp-padded", spp("pyramid_height: 3"), ((2, 3, 7, 10),), partial(pyramid, height=3)),
    Row(
        "spp-average",
        spp("pyramid_height: 2 pool: AVE engine: CAFFE"),
        ((2, 2, 3, 6),),
        partial(pyramid, height=2, average=True),
    ),
    Row(
        "spp-stochastic-test",
        spp("pyramid_height: 2 pool: STOCHASTIC"),
        (POSITIVE[:, :, :4],),
        lambda x: np.concatenate(
            [stochastic(x, 6, 1, (1, 1), TEST).reshape(len(x), 3), _halves(x).reshape(len(x), 12)], axis=1
        ),
        phases=(TEST,),
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
        pooling("pool: STOCHASTIC kernel_size: 2 pad: 1"),
        "pooling_param.pad must be 0 for STOCHASTIC pooling, got (1, 1)",
    ),
    (spp(""), "spp_param.pyramid_height must be at least 1, got none"),
    (
        spp("pyramid_height: 4"),
        "spp_param.pyramid_height must be at most 2 for a side of 5: 4 windows of 2 would need a pad of 2; got 4",
    ),
    (
        spp("pyramid_height: 2 pool: STOCHASTIC"),
        "spp_param.pyramid_height must be at most 1 for a side of 5: 2 windows of 3 would need a pad of 1, which "
        "STOCHASTIC does not take; got 2",
    ),
    ('type: "LRN" lrn_param { local_size: 4 }', "lrn_param.local_size must be odd, got 4"),
]


@pytest.mark.parametrize(("layer", "message"), MISTAKES, ids=[message[:60] for _, message in MISTAKES])
def test_vision_layer_mistake_is_one_sentence(layer: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros((2, 3, 4, 5))])
    assert str(caught.value) == message


@pytest.mark.parametrize("layer", [pooling("kernel_size: 2"), spp("pyramid_height: 1"), 'type: "LRN"'])
def test_vision_layer_of_three_axes_is_refused(layer: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros((2, 3, 4))])
    assert str(caught.value) == 'bottom 0 "x0" must have 4 axes (N, C, H, W), got shape (2, 3, 4)'


@pytest.mark.parametrize("method", ["AVE", "STOCHASTIC"])
def test_pooling_other_than_max_with_a_second_top_is_refused(method: str) -> None:
    with pytest.raises(UserError, match=f"a second top .* is for MAX pooling only, got {method}"):
        make_rig(pooling(f"pool: {method} kernel_size: 2"), [np.zeros((1, 1, 4, 4))], num_tops=2)


def test_stochastic_pooling_of_a_negative_unit_names_the_item() -> None:
    x = np.ones((3, 2, 2, 2))
    x[1, 0, 1, 0] = -0.5
    rig = make_rig(pooling("pool: STOCHASTIC kernel_size: 2"), [x])
    with pytest.raises(
        ItemError, match="must have a bottom of at least 0, such as a ReLU's top, got -0.5"
    ) as caught:
        rig.forward()
    assert caught.value.item == 1


def test_stochastic_pooling_draws_anew_in_each_pass_and_on_each_rank() -> None:
    text, x = (
        pooling("pool: STOCHASTIC kernel_size: 2 stride: 2"),
        np.random.default_rng(1).random((4, 4, 8, 8)),
    )
    first, other = make_rig(text, [x]), make_rig(text, [x], rank=1)
    y = first.forward()[0]
    assert np.any(other.forward()[0] != y)
    np.testing.assert_array_equal(first.forward()[0], y)
    first.layer.context.random.pass_index += 1
    assert np.any(first.forward()[0] != y)
