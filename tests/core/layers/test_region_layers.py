"""Layers of regions of interest: ROIPooling and PSROIPooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Array, Row, cases, make_rig
from tests.core.net_builder import inputs, make_net


def rounded(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def pixels(start: float, size: float, bins: int, limit: int) -> Iterator[range]:
    """Yield for each bin of a side of a region the indices on the map."""
    for i in range(bins):
        first, behind = math.floor(start + i * size / bins), math.ceil(start + (i + 1) * size / bins)
        yield range(max(first, 0), min(behind, limit))


def roi_pool(x: Array, regions: Array, bins: tuple[int, int], scale: float = 1) -> Array:
    """Return the maxima (R, C, bins), one bin after the other."""
    y = np.zeros((len(regions), x.shape[1], *bins))
    for r, (image, *corners) in enumerate(regions.reshape(len(regions), 5)):
        x1, y1, x2, y2 = (rounded(corner * scale) for corner in corners)
        rows = pixels(y1, max(y2 - y1 + 1, 1), bins[0], x.shape[2])
        for p, row in enumerate(rows):
            for q, column in enumerate(pixels(x1, max(x2 - x1 + 1, 1), bins[1], x.shape[3])):
                if len(row) and len(column):
                    y[r, :, p, q] = x[int(image)][:, row][:, :, column].max(axis=(1, 2))
    return y


def psroi_pool(x: Array, regions: Array, outputs: int, group: int, scale: float) -> Array:
    """Return the means (R, outputs, group, group), one bin after the other."""
    y = np.zeros((len(regions), outputs, group, group))
    for r, (image, *corners) in enumerate(regions.reshape(len(regions), 5)):
        x1, y1 = (rounded(corner) * scale for corner in corners[:2])
        x2, y2 = ((rounded(corner) + 1) * scale for corner in corners[2:])
        for p, row in enumerate(pixels(y1, max(y2 - y1, 0.1), group, x.shape[2])):
            for q, column in enumerate(pixels(x1, max(x2 - x1, 0.1), group, x.shape[3])):
                for d in range(outputs):
                    channel = x[int(image), (d * group + p) * group + q]
                    seen = [channel[i, j] for i in row for j in column]
                    y[r, d, p, q] = sum(seen) / len(seen) if seen else 0
    return y


def roi_pooling(fields: str) -> str:
    return f'type: "ROIPooling" roi_pooling_param {{ {fields} }}'


def psroi_pooling(fields: str) -> str:
    return f'type: "PSROIPooling" psroi_pooling_param {{ {fields} }}'


# The image is an integer part: so the gradient, which is 0 along it, can be tested too.
REGIONS = np.array(
    [
        [0.25, 0, 0, 7, 5],  # the whole map
        [1.25, 2, 1, 4.2, 4.8],
        [0.25, 3, 3, 3, 3],  # one pixel
        [1.25, -4, -3, 2, 3],  # partly outside
        [0.25, 20, 20, 30, 30],  # outside: 0
        [1.25, 6, 4, 3, 2],  # ends before it starts: one pixel
        [0.25, 5, 1, 40, 2],  # bins that are outside
    ]
)
HALVES = np.array([[0, 1, 1, 9, 7], [1, 5, 3, 11, 9], [0, -1, -3, 3, 5]])  # .5 once they are scaled by a half

ROWS = (
    Row(
        "roi-pooling",
        roi_pooling("pooled_h: 2 pooled_w: 3"),
        ((2, 3, 6, 8), REGIONS),
        partial(roi_pool, bins=(2, 3)),
    ),
    Row(
        "roi-pooling-more-bins-than-pixels",
        roi_pooling("pooled_h: 7 pooled_w: 5"),
        ((2, 2, 6, 8), REGIONS.reshape(7, 5, 1, 1)),
        partial(roi_pool, bins=(7, 5)),
    ),
    Row(
        "roi-pooling-scaled",
        roi_pooling("pooled_h: 3 pooled_w: 2 spatial_scale: 0.125"),
        ((2, 3, 6, 8), REGIONS * [1, 8, 8, 8, 8] + [0, 1, -2, 3, 1]),
        partial(roi_pool, bins=(3, 2), scale=0.125),
    ),
    Row(
        "roi-pooling-halves-away-from-zero",
        roi_pooling("pooled_h: 2 pooled_w: 2 spatial_scale: 0.5"),
        ((2, 3, 6, 8), HALVES),
        partial(roi_pool, bins=(2, 2), scale=0.5),
        gradient_tops=(),  # there is none along the regions
    ),
    Row(
        "roi-pooling-no-regions",
        roi_pooling("pooled_h: 2 pooled_w: 2"),
        ((2, 3, 6, 8), (0, 5)),
        partial(roi_pool, bins=(2, 2)),
    ),
    Row(
        "psroi-pooling",
        psroi_pooling("spatial_scale: 0.5 output_dim: 3 group_size: 2"),
        ((2, 12, 6, 8), REGIONS * [1, 2, 2, 2, 2] + [0, 0.25, 0, 0.25, 0]),
        partial(psroi_pool, outputs=3, group=2, scale=0.5),
    ),
    Row(
        "psroi-pooling-one-bin",
        psroi_pooling("spatial_scale: 1 output_dim: 2 group_size: 1"),
        ((2, 2, 6, 8), REGIONS),
        partial(psroi_pool, outputs=2, group=1, scale=1),
    ),
    Row(
        "psroi-pooling-small-regions",
        psroi_pooling("spatial_scale: 0.0625 output_dim: 1 group_size: 4"),
        ((2, 16, 6, 8), REGIONS),
        partial(psroi_pool, outputs=1, group=4, scale=0.0625),
    ),
    Row(
        "psroi-pooling-no-regions",
        psroi_pooling("spatial_scale: 1 output_dim: 3 group_size: 2"),
        ((2, 12, 6, 8), (0, 5)),
        partial(psroi_pool, outputs=3, group=2, scale=1),
    ),
    Row(
        "psroi-pooling-halves-away-from-zero",
        psroi_pooling("spatial_scale: 0.5 output_dim: 1 group_size: 2"),
        ((2, 4, 6, 8), HALVES + [0, 0.5, -0.5, 0.5, -0.5]),
        partial(psroi_pool, outputs=1, group=2, scale=0.5),
        gradient_tops=(),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_region_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_roi_pooling_gives_the_gradient_to_the_first_of_equal_maxima() -> None:
    features = [[[[0, 5, 1], [5, 5, 2], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 0, 0]]]]
    rig = make_rig(roi_pooling("pooled_h: 1 pooled_w: 1"), [features, [[0, 0, 0, 2, 2]]])
    rig.forward()
    rig.backward([np.array([3.0, 4.0]).reshape(1, 2, 1, 1)], [True, False])
    first_row_counts_before_first_column = [[0, 3, 0], [0, 0, 0], [0, 0, 0]]
    of_zeros = [[4, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(rig.bottom[0].diff, [[first_row_counts_before_first_column, of_zeros]])


def test_roi_pooling_of_regions_that_overlap_adds_their_gradients() -> None:
    rig = make_rig(
        roi_pooling("pooled_h: 1 pooled_w: 2"), [[[[[0, 9, 0]]]], [[0, 0, 0, 2, 0], [0, 1, 0, 1, 0]]]
    )
    rig.forward()
    rig.backward([np.array([[[[1.0, 2.0]]], [[[4.0, 8.0]]]])], [True, False])
    np.testing.assert_array_equal(rig.bottom[0].diff, [[[[0, 15, 0]]]])


def test_roi_pooling_bins_are_counted_in_the_blobs_precision_as_caffe_does() -> None:
    """13·(7 / 13) is 7 in real numbers and in float64, more in float32: the last bin reaches one pixel further."""
    features = np.arange(10.0).reshape(1, 1, 1, 10)
    for dtype, last in ((np.float32, 7), (np.float64, 6)):
        rig = make_rig(roi_pooling("pooled_h: 1 pooled_w: 13"), [features, [[0, 0, 0, 6, 0]]], dtype=dtype)
        assert rig.forward()[0][0, 0, 0, 12] == last


def test_psroi_pooling_spreads_the_gradient_evenly() -> None:
    text = psroi_pooling("spatial_scale: 1 output_dim: 1 group_size: 2")
    rig = make_rig(text, [np.zeros((1, 4, 2, 4)), [[0, 0, 0, 3, 1]]])
    rig.forward()
    rig.backward([np.array([[[[2.0, 4.0], [6.0, 8.0]]]])], [True, False])
    left, right, none = [1, 1, 0, 0], [0, 0, 2, 2], [0, 0, 0, 0]
    expected = [[left, none], [right, none], [none, [3, 3, 0, 0]], [none, [0, 0, 4, 4]]]
    np.testing.assert_allclose(rig.bottom[0].diff, [expected], atol=1e-15)


def test_region_layer_takes_regions_from_layers_that_learn() -> None:
    """Proposals come from a region proposal network; Caffe's nets don't set propagate_down there."""
    net = make_net(
        inputs(features=(1, 2, 4, 4), x=(3, 4))
        + """
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "rois" inner_product_param { num_output: 5 } }
        layer { name: "pool" type: "ROIPooling" bottom: "features" bottom: "rois" top: "y" loss_weight: 1
                roi_pooling_param { pooled_h: 2 pooled_w: 2 } }"""
    )
    net.forward()  # weights are 0, and so are the regions
    net.backward()
    np.testing.assert_array_equal(net.params["ip"][0].diff, 0)


MISTAKES = [
    (
        roi_pooling("pooled_w: 2"),
        ((1, 2, 3, 3), (1, 5)),
        "roi_pooling_param.pooled_h must be at least 1, got none",
    ),
    (
        roi_pooling("pooled_h: 2"),
        ((1, 2, 3, 3), (1, 5)),
        "roi_pooling_param.pooled_w must be at least 1, got none",
    ),
    (
        roi_pooling("pooled_h: 2 pooled_w: 2"),
        ((1, 2, 3), (1, 5)),
        'bottom 0 "x0" must have 4 axes (N, C, H, W), got shape (1, 2, 3)',
    ),
    (
        roi_pooling("pooled_h: 2 pooled_w: 2"),
        ((1, 2, 3, 3), (5, 4)),
        'bottom 1 "x1" must have rows of 5 values (image, x1, y1, x2, y2), got shape (5, 4)',
    ),
    (
        roi_pooling("pooled_h: 2 pooled_w: 2"),
        ((2, 2, 3, 3), [[0, 0, 0, 1, 1], [2, 0, 0.5, 1, 1]]),
        'bottom 1 "x1" must have rows of an image, 0 to 1, and four corners within 1e+09, '
        "got 2, 0, 0.5, 1, 1 in row 1",
    ),
    (
        psroi_pooling("spatial_scale: 1 output_dim: 1 group_size: 1"),
        ((1, 1, 3, 3), [[0, 0, 0, math.nan, 1]]),
        'bottom 1 "x1" must have rows of an image, 0 to 0, and four corners within 1e+09, '
        "got 0, 0, 0, nan, 1 in row 0",
    ),
    (
        psroi_pooling("spatial_scale: 1 output_dim: 2 group_size: 3"),
        ((1, 12, 3, 3), (1, 5)),
        "the scores must have output_dim x group_size x group_size = 18 channels, got 12 in shape (1, 12, 3, 3)",
    ),
    (
        psroi_pooling("output_dim: 2 group_size: 3"),
        ((1, 18, 3, 3), (1, 5)),
        "psroi_pooling_param.spatial_scale must be greater than 0, got none",
    ),
    (
        psroi_pooling("spatial_scale: 1 output_dim: 2 group_size: -3"),
        ((1, 18, 3, 3), (1, 5)),
        "psroi_pooling_param.group_size must be greater than 0, got -3",
    ),
]


@pytest.mark.parametrize(("layer", "inputs", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_region_layer_mistake_is_one_sentence(layer: str, inputs: tuple[object, ...], message: str) -> None:
    arrays = [np.zeros(given) if isinstance(given, tuple) else np.array(given) for given in inputs]
    with pytest.raises(UserError) as caught:
        make_rig(layer, arrays).forward()
    assert str(caught.value) == message
