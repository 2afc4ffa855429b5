"""The normal distribution function against the C library's erfc, which is exact to a unit in the last place."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dtrain.core.layers.parts.normal_cdf import normal_cdf

PLACES = np.concatenate([np.linspace(-12, 9, 4001), np.linspace(-1e-3, 1e-3, 201), [-1e-300, 0.0, 1e-20]])


def exact(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])


@pytest.mark.parametrize(
    ("dtype", "absolute", "relative"), [(np.float64, 3e-16, 5e-14), (np.float32, 2e-7, 2e-5)]
)
def test_normal_cdf_is_half_of_erfc(dtype: type, absolute: float, relative: float) -> None:
    x = PLACES.astype(dtype)
    got, expected = normal_cdf(np, x).astype(np.float64), exact(x.astype(np.float64))
    assert np.abs(got - expected).max() < absolute
    assert np.abs(got / expected - 1).max() < relative


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_normal_cdf_far_out_is_0_or_1_and_keeps_nan(dtype: type) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        got = normal_cdf(np, np.array([-np.inf, -1e30, -50, 50, 1e30, np.inf], dtype))
    np.testing.assert_array_equal(got, [0, 0, 0, 1, 1, 1])
    assert np.isnan(normal_cdf(np, np.array([np.nan], dtype))).all()


@pytest.mark.parametrize("shape", [(0, 3), (1,), (2, 3, 4)])
def test_normal_cdf_keeps_shape_and_dtype_and_its_argument(shape: tuple[int, ...]) -> None:
    x = np.full(shape, -1, np.float32)
    result = normal_cdf(np, x)
    assert (result.shape, result.dtype) == (shape, np.float32)
    assert np.all(x == -1)
