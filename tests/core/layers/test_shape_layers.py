"""Layers that only share or join values: Concat, Split, Flatten, Reshape, Silence, Parameter."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from tests.core.layers.layer_harness import Row, cases, make_rig


def reshape(fields: str) -> str:
    return f'type: "Reshape" reshape_param {{ {fields} }}'


ROWS = (
    Row(
        "concat",
        'type: "Concat"',
        ((2, 3, 4), (2, 1, 4), (2, 2, 4)),
        lambda *xs: np.concatenate(xs, 1),
        in_place=False,
    ),
    Row(
        "concat-axis",
        'type: "Concat" concat_param { axis: -1 }',
        ((2, 3, 4), (2, 3, 1)),
        lambda *xs: np.concatenate(xs, 2),
        in_place=False,
    ),
    Row(
        "concat-old-name",
        'type: "Concat" concat_param { concat_dim: 0 }',
        ((2, 3), (1, 3)),
        lambda *xs: np.concatenate(xs, 0),
        in_place=False,
    ),
    Row("concat-one", 'type: "Concat"', ((2, 3),), lambda x: x),
    Row(
        "split",
        'type: "Split"',
        ((2, 3, 4),),
        lambda x: (x, x, x),
        num_tops=3,
        gradient_tops=(0, 1, 2),
    ),
    Row("split-one", 'type: "Split"', ((2, 3),), lambda x: x),
    Row("flatten", 'type: "Flatten"', ((2, 3, 4, 5),), lambda x: x.reshape(len(x), 60)),
    Row(
        "flatten-range",
        'type: "Flatten" flatten_param { axis: 1 end_axis: -2 }',
        ((2, 3, 4, 5),),
        lambda x: x.reshape(len(x), 12, 5),
    ),
    Row(
        "reshape-copy-infer",
        reshape("shape { dim: 0 dim: -1 dim: 2 }"),
        ((2, 3, 4),),
        lambda x: x.reshape(len(x), 6, 2),
        batches=(3,),  # nothing can be inferred from an empty blob
    ),
    Row(
        "reshape-span",
        reshape("shape { dim: 2 dim: 6 } axis: 1 num_axes: 2"),
        ((2, 3, 4, 5),),
        lambda x: x.reshape(len(x), 2, 6, 5),
    ),
    Row(
        "reshape-append",
        reshape("shape { dim: 1 dim: 1 } axis: -1 num_axes: 0"),
        ((2, 3),),
        lambda x: x[:, :, None, None],
    ),
    Row("reshape-to-scalar", reshape("shape { }"), ((1, 1),), lambda x: x[0, 0], batches=()),
    Row(
        "parameter",
        'type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }',
        (),
        lambda param: param,
        batches=(),
    ),
    Row("parameter-scalar", 'type: "Parameter"', (), lambda param: param, batches=()),
    Row("silence", 'type: "Silence"', ((2, 3), (4,)), lambda *xs: (), num_tops=0, gradient_tops=(0,)),
)


@pytest.mark.parametrize(("check", "row"), cases(ROWS))
def test_shape_layer_row_holds(check: Callable[[Row], None], row: Row) -> None:
    check(row)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        ('type: "Flatten"', (6,)),
        (reshape("shape { dim: 6 }"), (2, 3)),
        ('type: "Concat"', (2, 3)),
        ('type: "Slice"', (2, 3)),
        ('type: "Permute" permute_param { order: [0, 1] }', (2, 3)),
    ],
)
def test_view_of_one_bottom_shares_its_memory(layer: str, shape: tuple[int, ...]) -> None:
    rig = make_rig(layer, [np.zeros((2, 3))] if len(shape) > 1 else [np.zeros((6, 1))])
    rig.forward()
    rig.bottom[0].data[...] = 4
    rig.backward([np.full(rig.top[0].shape, 5.0)])
    assert np.all(rig.top[0].data == 4)
    assert np.all(rig.bottom[0].diff == 5)


@pytest.mark.parametrize("layer", ['type: "Concat"', 'type: "Slice"', 'type: "Permute"'])
def test_layer_that_shares_takes_the_gradient_also_when_its_tops_memory_was_exchanged(layer: str) -> None:
    rig = make_rig(layer, [np.zeros((2, 3))])
    rig.forward()
    behind = Blob((2, 3), np.float64)
    rig.top[0].share_diff(behind)  # as a Flatten behind it does in backward
    rig.backward([np.full((2, 3), 5.0)])
    np.testing.assert_array_equal(rig.bottom[0].diff, np.full((2, 3), 5.0))


def test_parameter_shares_its_data_and_starts_at_zero() -> None:
    rig = make_rig('type: "Parameter" parameter_param { shape { dim: 3 } }', [])
    np.testing.assert_array_equal(rig.forward()[0], [0, 0, 0])
    rig.top[0].data[...] = 5
    np.testing.assert_array_equal(rig.layer.blobs[0].data, [5, 5, 5])


MISTAKES = [
    (
        'type: "Parameter" parameter_param { shape { dim: -1 } }',
        [],
        "parameter_param.shape.dim must be 0 or more, got -1",
    ),
    (
        'type: "Concat" concat_param { axis: 1 concat_dim: 1 }',
        [(2, 3), (2, 3)],
        "concat_param.axis must not be given together with concat_dim (its old name), got both",
    ),
    (
        'type: "Concat"',
        [(2, 3, 4), (2, 1, 5)],
        'all bottoms must have one shape but for axis 1, got (2, 3, 4) from bottom 0 "x0" '
        'and (2, 1, 5) from bottom 1 "x1"',
    ),
    (
        'type: "Flatten" flatten_param { axis: 2 end_axis: 0 }',
        [(2, 3, 4)],
        "flatten_param.end_axis must not be before axis, got axis 2 and end_axis 0 of (2, 3, 4)",
    ),
    (
        reshape("shape { dim: -1 dim: -1 }"),
        [(2, 3)],
        "reshape_param.shape must have at most one -1, got 2",
    ),
    (reshape("shape { dim: -2 }"), [(2, 3)], "reshape_param.shape.dim must be -1, 0 or more, got -2"),
    (
        reshape("shape { dim: 4 }"),
        [(2, 3)],
        "reshape_param.shape must keep the number of values, got 6 in (2, 3) and 4 in (4,)",
    ),
    (
        reshape("shape { dim: 4 dim: -1 }"),
        [(2, 3)],
        "reshape_param.shape can't infer -1: 6 values of (2, 3) over 4",
    ),
    (
        reshape("shape { dim: 2 dim: 3 dim: 0 }"),
        [(2, 3)],
        "reshape_param.shape has a 0 for axis 2, but the bottom has shape (2, 3)",
    ),
    (
        reshape("shape { dim: 6 } axis: 3"),
        [(2, 3)],
        "reshape_param.axis must be -3 to 2 for a bottom of 2 axes, got 3",
    ),
    (
        reshape("shape { dim: 6 } axis: 1 num_axes: 2"),
        [(2, 3)],
        "reshape_param.num_axes must be -1 (all) to 1 from axis 1 on, got 2",
    ),
]


@pytest.mark.parametrize(("layer", "shapes", "message"), MISTAKES, ids=[row[2][:60] for row in MISTAKES])
def test_shape_layer_mistake_is_one_sentence(layer: str, shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make_rig(layer, [np.zeros(shape) for shape in shapes])
    assert str(caught.value) == message


def test_concat_of_several_bottoms_in_place_is_refused() -> None:
    with pytest.raises(UserError, match="Concat must not work in place with several bottoms"):
        make_rig('type: "Concat"', [np.zeros((2, 3)), np.zeros((2, 1))], in_place=True)
