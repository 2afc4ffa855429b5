from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ActivationSpec
from tests.core.engines.onednn.conftest import BF16_ROUNDOFF


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("function", "slope"), [("relu", 0.0), ("relu", 0.3), ("sigmoid", 0.0), ("tanh", 0.0)]
)
def test_activation_stays_in_the_layout_of_x(
    bench: Any, layout: str, in_place: bool, function: str, slope: float
) -> None:
    shape = (2, 32, 3, 5)
    memories = bench.check_unary(ActivationSpec(shape, function, slope), layout, in_place=in_place)
    assert memories == {bench.memory(layout, shape)}


@pytest.mark.parametrize("function", ["relu", "sigmoid", "tanh"])
def test_activation_of_a_layout_filled_up_with_zeros_is_right(bench: Any, function: str) -> None:
    bench.check_unary(ActivationSpec((2, 20, 3, 5), function), "blocked")


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
def test_relu_shows_a_nan(bench: Any, layout: str) -> None:
    x = np.array([np.nan, np.inf, 1.5e38, 1e-45, 0.0, -1e-45, -3.0e38, -2.0]).reshape(1, 2, 2, 2)
    y = Blob(x.shape)
    bench.engine.create(ActivationSpec(x.shape, "relu")).forward(bench.blob(x, layout), y)
    expected = np.array([np.nan, np.inf, 1.5e38, 1e-45, 0, 0, 0, 0], np.float32)
    np.testing.assert_array_equal(y.data.ravel(), expected)


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("function", "slope"), [("relu", 0.0), ("relu", 0.25), ("sigmoid", 0.0), ("tanh", 0.0)]
)
def test_activation_of_bf16_stays_bf16(
    bf16_bench: Any, layout: str, in_place: bool, function: str, slope: float
) -> None:
    """tanh's gradient dy·(1 − y²) is off by 2·|y| times y's rounding, besides its own; sigmoid's by less."""
    shape = (2, 32, 3, 5)
    spec, tolerance = ActivationSpec(shape, function, slope), 3 * BF16_ROUNDOFF
    memories = bf16_bench.check_unary(spec, layout, in_place=in_place, gradient_tolerance=tolerance)
    assert memories == {bf16_bench.memory(layout, shape)}


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
def test_relu_of_bf16_shows_a_nan(bf16_bench: Any, layout: str) -> None:
    x = np.array([np.nan, np.inf, 1.5e38, 2.0**-126, 0.0, -(2.0**-126), -3.0e38, -2.0]).reshape(1, 2, 2, 2)
    y = Blob(x.shape)
    bf16_bench.engine.create(ActivationSpec(x.shape, "relu")).forward(bf16_bench.blob(x, layout), y)
    expected = np.array([np.nan, np.inf, 1.5e38, 2.0**-126, 0, 0, 0, 0], np.float32)
    np.testing.assert_allclose(y.data.ravel(), expected, rtol=BF16_ROUNDOFF)


def test_activation_of_x_whose_layout_changes_follows_it(bench: Any) -> None:
    x, y = bench.normal(1, 20, 2, 2), Blob((1, 20, 2, 2))
    operation = bench.engine.create(ActivationSpec(x.shape, "tanh"))
    for layout in ("blocked", "plain", "blocked", "channels last"):
        operation.forward(bench.blob(x, layout), y)
        bench.expect(y.data, np.tanh(x))
