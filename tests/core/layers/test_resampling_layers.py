"""Layers that resize planes: Interp, Upsample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from dtrain.core.errors import ItemError, UserError
from tests.core.layers.layer_harness import Array, Row, cases, make_rig


def interp(fields: str, more: str = "") -> str:
    return f'type: "Interp" interp_param {{ {fields} }} {more}'


def upsample(fields: str, more: str = "") -> str:
    return f'type: "Upsample" upsample_param {{ {fields} }} {more}'


NEAREST, BILINEAR = (f"dtrain_param {{ interpolation: {name} }}" for name in ("NEAREST", "BILINEAR"))


def bilinear(x: Array, size: tuple[int, int], cut: tuple[int, int] = (0, 0)) -> Array:
    """Return x (…, H, W) resized with aligned corners, pixel by pixel; first, `cut` rows and columns are cut off."""
    x = x[..., cut[0] : x.shape[-2] - cut[1], cut[0] : x.shape[-1] - cut[1]]
    y = np.zeros((*x.shape[:-2], *size))
    for place in np.ndindex(*size):
        ends = []
        for i, num_inputs, num_outputs in zip(place, x.shape[-2:], size, strict=True):
            ratio = (
                np.float32(num_inputs - 1) / np.float32(num_outputs - 1) if num_outputs > 1 else np.float32(0)
            )
            at = ratio * np.float32(i)
            first = int(at)
            part = float(at - np.float32(first))
            ends.append([(first, 1 - part), (min(first + 1, num_inputs - 1), part)])
        for row, row_share in ends[0]:
            for column, column_share in ends[1]:
                y[..., *place] += row_share * column_share * x[..., row, column]
    return y


def nearest(x: Array, size: tuple[int, int]) -> Array:
    """Return x resized to the pixel floor(p·H/P), q likewise."""
    y = np.zeros((*x.shape[:-2], *size))
    for p, q in np.ndindex(*size):
        y[..., p, q] = x[..., p * x.shape[-2] // size[0], q * x.shape[-1] // size[1]]
    return y


def unpool(x: Array, mask: Array, size: tuple[int, int]) -> Array:
    """Return planes of 0 with the pixels of x where the mask says."""
    y = np.zeros((*x.shape[:2], size[0] * size[1]))
    for n, c, h, w in np.ndindex(*x.shape):
        y[n, c, int(mask[n, c, h, w])] = x[n, c, h, w]
    return y.reshape(*x.shape[:2], *size)


def make_mask(size: tuple[int, int], seed: int = 0) -> Array:
    """Return a mask (2, 3, 2, 2) of places in a plane of `size`, each once per plane."""
    random = np.random.default_rng(seed)
    places = [random.permutation(size[0] * size[1])[:4] for _ in range(6)]
    return np.reshape(places, (2, 3, 2, 2))


SHAPE = (2, 2, 3, 4)

ROWS = (
    Row("interp-size", interp("height: 5 width: 9"), (SHAPE,), partial(bilinear, size=(5, 9))),
    Row("interp-smaller", interp("height: 2 width: 3"), ((2, 2, 7, 8),), partial(bilinear, size=(2, 3))),
    Row("interp-mixed", interp("height: 7 width: 2"), (SHAPE,), partial(bilinear, size=(7, 2))),
    Row("interp-to-one", interp("height: 1 width: 1"), (SHAPE,), lambda x: x[:, :, :1, :1]),
    Row(
        "interp-from-one",
        interp("height: 3 width: 2"),
        ((2, 2, 1, 1),),
        lambda x: x.repeat(3, 2).repeat(2, 3),
    ),
    Row("interp-zoom", interp("zoom_factor: 3"), (SHAPE,), partial(bilinear, size=(7, 10))),
    Row("interp-shrink", interp("shrink_factor: 2"), ((2, 2, 6, 7),), partial(bilinear, size=(3, 4))),
    Row(
        # 6 → (6 − 1) // 2 + 1 = 3 → 3 + 2·3 = 9; 7 → 4 → 13
        "interp-shrink-and-zoom",
        interp("shrink_factor: 2 zoom_factor: 4 height: 99"),
        ((2, 2, 6, 7),),
        partial(bilinear, size=(9, 13)),
    ),
    Row(
        "interp-cut",
        interp("zoom_factor: 2 pad_beg: -1 pad_end: -2"),
        ((2, 2, 6, 7),),
        partial(bilinear, size=(5, 7), cut=(1, 2)),
    ),
    Row("interp-cut-alone", interp("zoom_factor: 1 pad_beg: -1"), (SHAPE,), lambda x: x[:, :, 1:, 1:]),
    Row("interp-same-size", interp("height: 3 width: 4"), (SHAPE,), lambda x: x),
    Row("interp-nearest", interp("height: 5 width: 3", NEAREST), (SHAPE,), partial(nearest, size=(5, 3))),
    Row(
        "interp-bilinear-named", interp("zoom_factor: 2", BILINEAR), (SHAPE,), partial(bilinear, size=(5, 7))
    ),
    Row("upsample", upsample("scale: 3"), (SHAPE,), partial(nearest, size=(9, 12))),
    Row("upsample-once", 'type: "Upsample"', (SHAPE,), lambda x: x),
    Row(
        "upsample-two-scales",
        upsample("scale_h: 2 scale_w: 1", NEAREST),
        (SHAPE,),
        partial(nearest, size=(6, 4)),
    ),
    Row("upsample-two-axes", upsample("scale: 2"), ((3, 4),), partial(nearest, size=(6, 8)), batches=()),
    Row("upsample-bilinear", upsample("scale: 2", BILINEAR), (SHAPE,), partial(bilinear, size=(6, 8))),
    Row(
        "upsample-mask",
        'type: "Upsample"',
        ((2, 3, 2, 2), make_mask((4, 4))),
        partial(unpool, size=(4, 4)),
    ),
    Row(
        "upsample-mask-scales",
        upsample("scale_h: 3 scale_w: 2"),
        ((2, 3, 2, 2), make_mask((6, 4), 1)),
        partial(unpool, size=(6, 4)),
    ),
    Row(
        "upsample-mask-size-before-scale",
        upsample("scale: 2 upsample_h: 3 upsample_w: 5"),
        ((2, 3, 2, 2), make_mask((3, 5), 2)),
        partial(unpool, size=(3, 5)),
    ),
    Row(
        "upsample-mask-padded-out",
        upsample("scale: 2 pad_out_h: true"),
        ((2, 3, 2, 2), make_mask((3, 4), 3)),
        partial(unpool, size=(3, 4)),
    ),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_resampling_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


def test_upsample_of_a_place_that_is_given_twice_keeps_the_last() -> None:
    rig = make_rig('type: "Upsample"', [np.array([[[[5.0, 6]]]]), np.array([[[[3, 3]]]])])
    np.testing.assert_array_equal(rig.forward()[0].ravel(), [0, 0, 0, 6, 0, 0, 0, 0])


def test_upsample_undoes_the_max_pooling_whose_mask_it_has() -> None:
    x = np.random.default_rng(2).permutation(2 * 2 * 6 * 4).reshape(2, 2, 6, 4) + 1.0
    pooling = make_rig('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', [x], num_tops=2)
    (y,) = make_rig('type: "Upsample"', pooling.forward()).forward()
    largest = x.reshape(2, 2, 3, 2, 2, 2).max(axis=(3, 5), keepdims=True)
    np.testing.assert_array_equal(
        y, np.where(x.reshape(2, 2, 3, 2, 2, 2) == largest, largest, 0).reshape(x.shape)
    )


@pytest.mark.parametrize("wrong", [8, -1, np.nan])
def test_upsample_of_an_index_beyond_the_plane_names_the_item(wrong: float) -> None:
    mask = np.zeros((2, 1, 1, 2))
    mask[1, 0, 0, 1] = wrong
    rig = make_rig('type: "Upsample"', [np.ones((2, 1, 1, 2)), mask])
    with pytest.raises(ItemError) as caught:
        rig.forward()
    assert str(caught.value) == (
        f'bottom 1 "x1", the mask, must hold indices 0 to 7 of the top\'s plane of 2 x 4, got {wrong:g}'
    )
    assert caught.value.item == 1


ONE, TWO = [(2, 3, 4, 5)], [(2, 3, 4, 5), (2, 3, 4, 5)]
SIZES_WANTED = (
    "interp_param must give shrink_factor, zoom_factor or both, or height and width of at least 1, got "
)
MISTAKES = [
    (interp(""), ONE, SIZES_WANTED + "height 0 and width 0"),
    (interp("height: 3"), ONE, SIZES_WANTED + "height 3 and width 0"),
    (interp("height: 3 width: -1"), ONE, SIZES_WANTED + "height 3 and width -1"),
    (interp("zoom_factor: 0"), ONE, "interp_param.zoom_factor must be at least 1, got 0"),
    (interp("shrink_factor: -2"), ONE, "interp_param.shrink_factor must be at least 1, got -2"),
    (
        interp("zoom_factor: 2 pad_beg: 1"),
        ONE,
        "interp_param.pad_beg must be at most 0 (it cuts off), got 1",
    ),
    (
        interp("zoom_factor: 2 pad_beg: -2 pad_end: -2"),
        ONE,
        "interp_param.pad_beg and pad_end must leave something of the bottom, got -2 and -2 for shape (2, 3, 4, 5)",
    ),
    (
        interp("zoom_factor: 2"),
        [(3, 4, 5)],
        'bottom 0 "x0" must have 4 axes (N, C, H, W), got shape (3, 4, 5)',
    ),
    (
        upsample("scale_h: 2"),
        ONE,
        "upsample_param.scale_h and scale_w must be given together, got one of them",
    ),
    (
        upsample("upsample_w: 2"),
        TWO,
        "upsample_param.upsample_h and upsample_w must be given together, got one of them",
    ),
    (
        upsample("scale: 2 scale_h: 2 scale_w: 2"),
        ONE,
        "upsample_param.scale must not be given together with scale_h and scale_w, got both",
    ),
    (
        upsample("upsample_h: 8 upsample_w: 8"),
        ONE,
        "upsample_param.upsample_h must be left out without a mask (a second bottom)",
    ),
    (
        upsample("pad_out_w: true"),
        ONE,
        "upsample_param.pad_out_w must be left out without a mask (a second bottom)",
    ),
    (upsample("scale: 0"), ONE, "upsample_param's scale must be at least 1, got 0"),
    ('type: "Upsample"', [(4,)], 'bottom 0 "x0" must have rows and columns, got shape (4,)'),
    (upsample("scale: 1"), TWO, "upsample_param's scale must be at least 2 with a mask, got 1"),
    (
        upsample("upsample_h: 9 upsample_w: 1"),
        TWO,
        "upsample_param's upsample_h and upsample_w must be at least 2 with a mask, got 1",
    ),
    (
        upsample("scale: 3 pad_out_h: true"),
        TWO,
        "upsample_param.pad_out_h must be left out unless the scale is 2 and no size is given, got it with scale 3",
    ),
    (
        upsample("upsample_h: 8 upsample_w: 9 pad_out_w: true"),
        TWO,
        "upsample_param.pad_out_w must be left out unless the scale is 2 and no size is given, got it with "
        "upsample_h and upsample_w",
    ),
    (
        upsample("", BILINEAR),
        TWO,
        "dtrain_param.interpolation must be left out with a mask: its indices place the pixels",
    ),
    (
        'type: "Upsample"',
        [(2, 3, 4, 5), (2, 3, 4, 4)],
        'all bottoms must have one shape, got (2, 3, 4, 5) from bottom 0 "x0" and (2, 3, 4, 4) from bottom 1 "x1"',
    ),
]


@pytest.mark.parametrize(("layer", "shapes", "message"), MISTAKES, ids=[row[2][:70] for row in MISTAKES])
def test_resampling_layer_mistake_is_one_sentence(
    layer: str, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape) for shape in shapes])
    assert str(caught.value) == message
