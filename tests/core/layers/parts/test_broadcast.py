"""A small blob laid over part of the axes of a large one."""

from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.core.layers.parts.broadcast import learned_shape, spread

SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("axis", "num_axes", "expected"),
    [(1, 1, (3,)), (1, 2, (3, 4)), (1, -1, (3, 4, 5)), (0, 4, SHAPE), (2, 0, ())],
)
def test_learned_shape_is_a_part_of_the_bottoms(axis: int, num_axes: int, expected: tuple[int, ...]) -> None:
    assert learned_shape(SHAPE, axis, num_axes, "scale_param") == expected


@pytest.mark.parametrize(("axis", "num_axes"), [(1, 4), (3, 2), (0, -2)])
def test_learned_shape_beyond_the_bottom_is_refused(axis: int, num_axes: int) -> None:
    with pytest.raises(UserError, match=f"bias_param.num_axes must be -1 .* got {num_axes}"):
        learned_shape(SHAPE, axis, num_axes, "bias_param")


@pytest.mark.parametrize(
    ("small", "axis", "expected"),
    [
        ((3,), 1, (2, 3, 20)),
        ((3, 4), 1, (2, 12, 5)),
        ((2,), 0, (1, 2, 60)),
        (SHAPE, 0, (1, 120, 1)),
        ((), 3, (1, 1, 120)),
    ],
)
def test_spread_is_what_lies_before_under_and_behind(
    small: tuple[int, ...], axis: int, expected: tuple[int, int, int]
) -> None:
    assert spread(SHAPE, small, axis) == expected


@pytest.mark.parametrize(("small", "axis"), [((4,), 1), ((5, 2), 3)])
def test_spread_that_does_not_match_names_both_shapes(small: tuple[int, ...], axis: int) -> None:
    with pytest.raises(UserError) as caught:
        spread(SHAPE, small, axis)
    assert str(caught.value) == f"shape {small} must be that of the bottom {SHAPE} from axis {axis} on"
