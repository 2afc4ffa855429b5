"""STOCHASTIC pooling: how often which unit is taken, and windows of zeros, NaN or infinity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.windows import Windows
from dtrain.core.layers.parts.stochastic_pooling import SampledPooling, WeightedPooling


def run(method: str, units: NDArray[Any], seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pool rows of units, one window each; return y and x.diff for y.diff 1."""
    num_windows, num_units = units.shape
    engine = create_engine("reference")
    windows = Windows(
        engine.xp, (num_windows, 1, 1, num_units), (num_windows, 1, 1, 1), (1, num_units), (1, 1), (0, 0)
    )
    pooling = (
        SampledPooling(windows, engine, lambda: np.random.default_rng(seed))
        if method == "sampled"
        else WeightedPooling(windows, engine)
    )
    x, y = Blob((num_windows, 1, 1, num_units)), Blob((num_windows, 1, 1, 1))
    x.data[...] = units.reshape(x.shape)
    pooling.forward(x, y, None)
    found = y.data.ravel().copy()
    y.data[...] = 0  # as a layer in place behind it might
    y.diff[...] = 1
    pooling.backward(x, y)
    return found, x.diff.reshape(units.shape)


def test_sampled_pooling_takes_each_unit_as_often_as_its_share() -> None:
    num_windows, units = 20000, np.array([1.0, 0, 4, 3, 2])
    y, x_diff = run("sampled", np.tile(units, (num_windows, 1)))
    counts = x_diff.sum(axis=0)
    shares = units / units.sum()
    deviation = np.sqrt(num_windows * shares * (1 - shares))
    assert np.all(np.abs(counts - num_windows * shares) <= 4 * deviation)
    np.testing.assert_array_equal(y, (x_diff * units).sum(axis=1))
    np.testing.assert_array_equal(x_diff.sum(axis=1), 1)


def test_sampled_pooling_of_zeros_takes_the_first_unit() -> None:
    y, x_diff = run("sampled", np.zeros((3, 4)))
    assert y.tolist() == [0, 0, 0]
    np.testing.assert_array_equal(x_diff, np.eye(4)[[0, 0, 0]])


def test_sampled_pooling_of_nan_and_infinity_shows_them() -> None:
    y, _ = run("sampled", np.array([[1, np.nan, 2], [1, np.inf, 2]]))
    assert np.isnan(y[0])
    assert np.isinf(y[1])


def test_weighted_pooling_averages_by_activation() -> None:
    y, x_diff = run("weighted", np.array([[1.0, 3], [0, 0]]))
    assert y.tolist() == [10 / 4, 0]  # (1 + 9) / (1 + 3)
    np.testing.assert_allclose(x_diff, [[(2 - 2.5) / 4, (6 - 2.5) / 4], [0, 0]])


@pytest.mark.filterwarnings("error")
def test_weighted_pooling_of_a_negative_sum_is_zero_and_of_nan_is_nan() -> None:
    y, x_diff = run("weighted", np.array([[-2.0, 1], [np.nan, 1]]))
    assert y[0] == 0
    assert np.isnan(y[1])
    np.testing.assert_array_equal(x_diff[0], 0)
