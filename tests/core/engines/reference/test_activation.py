from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.operations import ActivationSpec

FORMULAS = {
    ("relu", 0.0): lambda x: np.where(x > 0, x, 0),
    ("relu", 0.25): lambda x: np.where(x > 0, x, 0.25 * x),
    ("sigmoid", 0.0): lambda x: 1 / (1 + np.exp(-x)),
    ("tanh", 0.0): lambda x: (np.exp(2 * x) - 1) / (np.exp(2 * x) + 1),
}


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(), (1,), (3, 4, 5), (0, 4)])
@pytest.mark.parametrize(("function", "slope"), FORMULAS)
def test_activation_forward_and_backward_follow_the_formula(
    rig: Any, function: str, slope: float, shape: tuple[int, ...], in_place: bool
) -> None:
    formula = FORMULAS[function, slope]
    x, y_diff = rig.normal(*shape), rig.normal(*shape)
    y, x_diff = rig.run_unary(ActivationSpec(shape, function, slope), x, y_diff, in_place)
    rig.expect(y, np.asarray(formula(x)))
    rig.expect_gradient(formula, x, y_diff, x_diff)


@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_relu_gradient_at_zero_is_the_negative_slope(rig: Any, slope: float) -> None:
    _, x_diff = rig.run_unary(ActivationSpec((1,), "relu", slope), np.zeros(1), np.full(1, 3.0))
    assert x_diff[0] == 3 * slope


def test_relu_of_a_negative_slope_below_zero_out_of_place_follows_x(rig: Any) -> None:
    y, x_diff = rig.run_unary(ActivationSpec((2,), "relu", -2.0), np.array([-1.0, 1.0]), np.ones(2))
    assert y.tolist() == [2, 1]
    assert x_diff.tolist() == [-2, 1]


def test_sigmoid_of_large_values_saturates_without_overflow(rig: Any) -> None:
    with np.errstate(all="raise"):
        y, x_diff = rig.run_unary(ActivationSpec((2,), "sigmoid"), np.array([-800.0, 800.0]), np.ones(2))
    assert y.tolist() == [0, 1]
    assert x_diff.tolist() == [0, 0]
