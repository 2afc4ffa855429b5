"""Shapes from prototxt and bottoms that must agree."""

from __future__ import annotations

import pytest

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.parts.shapes import (
    check_equal_shapes,
    check_num_axes,
    check_one_per_top,
    name_bottom,
    shape_of,
)
from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import make_layer


@pytest.mark.parametrize("dims", [[], [0], [2, 3, 4], [1] * 32])
def test_shape_of_legal_dims_is_their_tuple(dims: list[int]) -> None:
    assert shape_of(caffe_pb2.BlobShape(dim=dims), "shape") == tuple(dims)


@pytest.mark.parametrize(
    ("dims", "message"),
    [([2, -1], "shape.dim must be 0 or more, got -1"), ([1] * 33, "shape must have at most 32 axes, got 33")],
)
def test_shape_of_illegal_dims_is_refused(dims: list[int], message: str) -> None:
    with pytest.raises(UserError) as caught:
        shape_of(caffe_pb2.BlobShape(dim=dims), "shape")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("num_given", "num_tops", "may_be_none", "is_right"),
    [
        (1, 3, False, True),
        (3, 3, False, True),
        (2, 3, False, False),
        (0, 3, False, False),
        (0, 3, True, True),
    ],
)
def test_one_per_top_counts(num_given: int, num_tops: int, may_be_none: bool, is_right: bool) -> None:
    try:
        check_one_per_top(num_given, num_tops, "shape", may_be_none)
        passed = True
    except UserError:
        passed = False
    assert passed is is_right


def test_name_bottom_without_a_name_is_its_number() -> None:
    layer = make_layer('type: "Concat"', num_bottoms=1)
    assert [name_bottom(layer, i) for i in range(2)] == ['bottom 0 "x0"', "bottom 1"]


def test_equal_shapes_that_differ_name_the_first_that_does() -> None:
    bottom = [Blob((2,)), Blob((2,)), Blob((3,))]
    layer = make_layer('type: "Concat"', num_bottoms=3)
    check_equal_shapes(layer, bottom[:2])
    with pytest.raises(UserError, match=r'\(2,\) from bottom 0 "x0" and \(3,\) from bottom 2 "x2"'):
        check_equal_shapes(layer, bottom)


def test_num_axes_that_are_wrong_name_the_shape() -> None:
    layer = make_layer('type: "LRN"', num_bottoms=1)
    check_num_axes(layer, Blob((1, 2)), 2, "N, C")
    with pytest.raises(UserError, match=r'bottom 0 "x0" must have 2 axes \(N, C\), got shape \(1, 2, 3\)'):
        check_num_axes(layer, Blob((1, 2, 3)), 2, "N, C")
