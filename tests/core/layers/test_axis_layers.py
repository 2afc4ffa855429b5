"""Layers that cut, repeat, reorder or sum up along axes: Slice, Crop, Tile, Permute, ShuffleChannel, Reduction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Array, Row, cases, make_rig


def sliced(fields: str) -> str:
    return f'type: "Slice" slice_param {{ {fields} }}'


def crop(fields: str) -> str:
    return f'type: "Crop" crop_param {{ {fields} }}'


def permute(fields: str) -> str:
    return f'type: "Permute" permute_param {{ {fields} }}'


def reduction(fields: str) -> str:
    return f'type: "Reduction" reduction_param {{ {fields} }}'


def shuffle(x: Array, group: int) -> Array:
    """Return x with channel j·group + i from channel i·(C/group) + j, one after the other."""
    y, size = np.empty_like(x), x.shape[1] // group
    for i, j in np.ndindex(group, size):
        y[:, j * group + i] = x[:, i * size + j]
    return y


ROWS = (
    Row(
        "slice-even",
        'type: "Slice"',
        ((2, 6, 3),),
        lambda x: (x[:, :2], x[:, 2:4], x[:, 4:]),
        num_tops=3,
        gradient_tops=(0, 1, 2),
        in_place=False,
    ),
    Row(
        "slice-points",
        sliced("axis: -1 slice_point: [1, 3]"),
        ((2, 3, 7),),
        lambda x: (x[..., :1], x[..., 1:3], x[..., 3:]),
        num_tops=3,
        gradient_tops=(0, 1, 2),
        in_place=False,
    ),
    Row(
        "slice-point-at-the-end",
        sliced("slice_point: [2, 3]"),
        ((2, 3),),
        lambda x: (x[:, :2], x[:, 2:3], x[:, 3:]),
        num_tops=3,
        gradient_tops=(0, 1, 2),
        in_place=False,
    ),
    Row(
        "slice-old-name",
        sliced("slice_dim: 2 slice_point: 1"),
        ((2, 3, 4),),
        lambda x: (x[..., :1], x[..., 1:]),
        num_tops=2,
        gradient_tops=(0, 1),
        in_place=False,
    ),
    Row("slice-one", 'type: "Slice"', ((2, 3),), lambda x: x),
    Row("crop", 'type: "Crop"', ((2, 3, 5, 6), (1, 1, 2, 4)), lambda x, r: x[:, :, :2, :4], batches=(2,)),
    Row(
        "crop-one-offset",
        crop("offset: 2"),
        ((2, 3, 5, 6), (1, 1, 2, 4)),
        lambda x, r: x[:, :, 2:4, 2:],
        batches=(2,),
    ),
    Row(
        "crop-all-axes",
        crop("axis: -4 offset: [1, 0, 2, 1]"),
        ((3, 3, 5, 6), (2, 3, 2, 4)),
        lambda x, r: x[1:3, :, 2:4, 1:5],
        batches=(),
    ),
    Row(
        "crop-last-axis-to-a-larger-blob",
        crop("axis: 1 offset: 1"),
        ((2, 5), (4, 3, 2)),
        lambda x, r: x[:, 1:4],
        batches=(2, 0),
    ),
    Row(
        "tile",
        'type: "Tile" tile_param { tiles: 3 }',
        ((2, 3, 2),),
        lambda x: np.tile(x, (1, 3, 1)),
        in_place=False,
    ),
    Row(
        "tile-axis",
        'type: "Tile" tile_param { axis: -1 tiles: 2 }',
        ((2, 3, 2),),
        lambda x: np.tile(x, (1, 1, 2)),
        in_place=False,
    ),
    Row(
        "tile-batch",
        'type: "Tile" tile_param { axis: 0 tiles: 2 }',
        ((2, 3),),
        lambda x: np.tile(x, (2, 1)),
        in_place=False,
    ),
    Row("tile-once", 'type: "Tile" tile_param { tiles: 1 }', ((2, 3),), lambda x: x),
    Row("permute", permute("order: [0, 2, 3, 1]"), ((2, 3, 4, 5),), lambda x: x.transpose(0, 2, 3, 1)),
    Row("permute-first", permute("order: 2"), ((2, 3, 4),), lambda x: x.transpose(2, 0, 1)),
    Row(
        "permute-rest-in-order", permute("order: [3, 1]"), ((2, 3, 4, 5),), lambda x: x.transpose(3, 1, 0, 2)
    ),
    Row("permute-none", permute(""), ((2, 3, 4),), lambda x: x),
    Row(
        "shuffle-channel",
        'type: "ShuffleChannel" shuffle_channel_param { group: 2 }',
        ((2, 6, 2, 3),),
        lambda x: shuffle(x, 2),
    ),
    Row(
        "shuffle-channel-three",
        'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
        ((2, 6, 2, 3),),
        lambda x: shuffle(x, 3),
    ),
    Row("shuffle-channel-one-group", 'type: "ShuffleChannel"', ((2, 3, 2, 2),), lambda x: x),
    Row("reduction-sum", 'type: "Reduction"', ((2, 3, 4),), lambda x: x.sum()),
    Row(
        "reduction-axis",
        reduction("axis: 1 coeff: -1.5"),
        ((2, 3, 4),),
        lambda x: -1.5 * x.sum(axis=(1, 2)),
    ),
    Row(
        "reduction-of-absolute-values",
        reduction("operation: ASUM axis: -1 coeff: 2"),
        ((2, 3, 4),),
        lambda x: 2 * np.abs(x).sum(axis=2),
    ),
    Row(
        "reduction-of-squares",
        reduction("operation: SUMSQ coeff: 0.5"),
        ((3, 4),),
        lambda x: (x * x).sum() / 2,
    ),
    Row(
        "reduction-mean",
        reduction("operation: MEAN axis: 1 coeff: 3"),
        ((2, 3, 4),),
        lambda x: 3 * x.mean(axis=(1, 2)),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_axis_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize("operation", ["SUM", "ASUM", "SUMSQ", "MEAN"])
def test_reduction_of_no_values_is_zero(operation: str) -> None:
    rig = make_rig(reduction(f"operation: {operation} axis: 1"), [np.zeros((2, 0, 3))])
    np.testing.assert_array_equal(rig.forward()[0], [0, 0])
    rig.backward([np.ones(2)])
    assert rig.bottom[0].diff.shape == (2, 0, 3)


def test_reduction_of_absolute_values_has_no_slope_at_zero() -> None:
    rig = make_rig(reduction("operation: ASUM"), [[0.0, -2, 3]])
    rig.forward()
    rig.backward([np.array(4.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, [0, -4, 4])


MISTAKES = [
    (
        sliced("axis: 1 slice_dim: 1"),
        [(2, 4)],
        "slice_param.axis must not be given together with slice_dim (its old name), got both",
    ),
    (sliced("axis: 2"), [(2, 4)], "slice_param.axis must be -2 to 1 for 2 axes, got 2"),
    (
        sliced("slice_point: [1, 2]"),
        [(2, 4)],
        "slice_param.slice_point must be given once per cut (1 for 2 tops), got 2",
    ),
    (
        sliced("slice_point: 5"),
        [(2, 4)],
        "slice_param.slice_point must rise from above 0 to at most 4, the axis' length, got 5",
    ),
    (
        sliced("slice_point: 0"),
        [(2, 4)],
        "slice_param.slice_point must rise from above 0 to at most 4, the axis' length, got 0",
    ),
    (
        'type: "Slice"',
        [(2, 5)],
        "an axis cut into 2 equal pieces must have a length that they divide, got 5; or give "
        "slice_param.slice_point",
    ),
    (
        crop("offset: 1 offset: 2"),
        [(2, 3, 4), (2, 3, 2)],
        "crop_param.offset must be given once or once per axis from crop_param.axis on (1), got 2 values",
    ),
    (
        crop("offset: 3"),
        [(2, 3, 4), (2, 3, 2)],
        'crop_param.offset plus the size in bottom 1 "x1" must be at most 4 along axis 2, got 3 + 2',
    ),
    (
        'type: "Crop"',
        [(2, 3, 4), (2, 3)],
        'bottom 1 "x1" must have as many axes as what is cropped, (2, 3, 4), got (2, 3)',
    ),
    ('type: "Crop"', [(2, 3), (2, 3)], "crop_param.axis must be -2 to 1 for 2 axes, got 2"),
    ('type: "Tile"', [(2, 3)], "tile_param.tiles must be at least 1, got none"),
    ('type: "Tile" tile_param { tiles: -1 }', [(2, 3)], "tile_param.tiles must be at least 1, got -1"),
    (
        'type: "Tile" tile_param { tiles: 2 axis: 2 }',
        [(2, 3)],
        "tile_param.axis must be -2 to 1 for 2 axes, got 2",
    ),
    (permute("order: [1, 1]"), [(2, 3)], "permute_param.order must name each axis once, got 1, 1"),
    (
        permute("order: 2"),
        [(2, 3)],
        'permute_param.order must name axes of bottom 0 "x0", 0 to 1 of (2, 3), got 2',
    ),
    (
        'type: "ShuffleChannel" shuffle_channel_param { group: 4 }',
        [(2, 6, 1, 1)],
        "shuffle_channel_param.group must divide the bottom's channels (6), got 4",
    ),
    (
        'type: "ShuffleChannel"',
        [(2, 6)],
        'bottom 0 "x0" must have 4 axes (N, C, H, W), got shape (2, 6)',
    ),
    (reduction("axis: 3"), [(2, 3)], "reduction_param.axis must be -2 to 1 for 2 axes, got 3"),
]


@pytest.mark.parametrize(("layer", "shapes", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_axis_layer_mistake_is_one_sentence(layer: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape) for shape in shapes], num_tops=2 if "Slice" in layer else 1)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("layer", "num_tops", "message"),
    [
        (
            'type: "Slice"',
            2,
            "Slice must not work in place with several tops; give them other names than the bottom",
        ),
        (
            'type: "Tile" tile_param { tiles: 2 }',
            1,
            "tile_param.tiles must be 1 in place, got 2; give the top another name",
        ),
    ],
)
def test_axis_layer_that_would_overwrite_its_bottom_is_refused(
    layer: str, num_tops: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros((2, 4))], num_tops=num_tops, in_place=True)
    assert str(caught.value) == message
