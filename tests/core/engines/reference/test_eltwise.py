from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines.operations import EltwiseSpec

Array = NDArray[np.float64]

FORMULAS: dict[str, Callable[..., Array]] = {
    "SUM": lambda *xs: sum((c * x for c, x in zip((1.0, -0.5, 2.0), xs, strict=False)), np.zeros(())),
    "PROD": lambda *xs: reduce(np.multiply, xs),
    "MAX": lambda *xs: np.stack(xs).max(axis=0),
}


def make_spec(shape: tuple[int, ...], operation: str, num_xs: int, stable: bool = True) -> EltwiseSpec:
    return EltwiseSpec(shape, operation, (1.0, -0.5, 2.0)[:num_xs], stable)


@pytest.mark.parametrize("shape", [(2, 3, 4), (1,), (0, 3)])
@pytest.mark.parametrize("num_xs", [2, 3])
@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("operation", FORMULAS)
def test_eltwise_forward_and_backward_follow_the_formula(
    rig: Any, operation: str, stable: bool, num_xs: int, shape: tuple[int, ...]
) -> None:
    formula = FORMULAS[operation]
    xs, y_diff = [rig.normal(*shape) for _ in range(num_xs)], rig.normal(*shape)
    y, x_diffs = rig.run_many_to_one(make_spec(shape, operation, num_xs, stable), xs, y_diff)
    rig.expect(y, formula(*xs))
    for i, (x, x_diff) in enumerate(zip(xs, x_diffs, strict=True)):
        rig.expect_gradient(lambda x, i=i: formula(*xs[:i], x, *xs[i + 1 :]), x, y_diff, x_diff)


@pytest.mark.parametrize(
    ("values", "winner"), [((1, 1, 1), 1), ((2, 1, 2), 0), ((1, 1, 2), 2), ((0, 2, 2), 1)]
)
def test_eltwise_maximum_of_ties_goes_to_the_second_of_the_first_two(
    rig: Any, values: tuple[float, ...], winner: int
) -> None:
    xs = [np.full((1,), float(value)) for value in values]
    _, x_diffs = rig.run_many_to_one(make_spec((1,), "MAX", 3), xs, np.full((1,), 5.0))
    assert [diff.item() for diff in x_diffs] == [5.0 if i == winner else 0.0 for i in range(3)]


def test_eltwise_stable_product_of_zero_has_the_gradient_of_the_others(rig: Any) -> None:
    xs = [np.array([0.0]), np.array([3.0]), np.array([2.0])]
    _, x_diffs = rig.run_many_to_one(make_spec((1,), "PROD", 3), xs, np.ones(1))
    assert [diff.item() for diff in x_diffs] == [6, 0, 0]


@pytest.mark.parametrize("operation", FORMULAS)
def test_eltwise_backward_leaves_what_is_not_wanted(rig: Any, operation: str) -> None:
    xs = [rig.normal(3), rig.normal(3)]
    _, x_diffs = rig.run_many_to_one(make_spec((3,), operation, 2), xs, np.ones(3), [True, False])
    assert [bool(np.isnan(diff).any()) for diff in x_diffs] == [False, True]
