from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import BatchNormSpec

Array = NDArray[np.float64]
EPS = 1e-3


def statistics(x: Array) -> tuple[Array, Array]:
    """Return mean and biased variance of each channel (axis 1; a single axis is one channel)."""
    channels = np.moveaxis(x, 1, 0) if x.ndim > 1 else x[None]
    values = [channel.ravel() for channel in channels]
    mean = np.array([v.sum() / v.size for v in values])
    return mean, np.array([((v - m) ** 2).sum() / v.size for v, m in zip(values, mean, strict=True)])


def normalise(x: Array, mean: Array, variance: Array) -> Array:
    """Return (x − mean) / sqrt(variance + eps)."""
    columns = (-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else (-1,)
    result: Array = (x - mean.reshape(columns)) / np.sqrt(variance.reshape(columns) + EPS)
    return result


def run(
    rig: Any, batch_statistics: bool, x: Blob, y: Blob, mean: Blob, variance: Blob, y_diff: Array
) -> Array:
    """Run forward and backward; return y.data."""
    operation = rig.engine.create(BatchNormSpec(x.shape, EPS, batch_statistics))
    operation.forward(x, y, mean, variance)
    y_data: Array = y.data.copy()
    y.data[...] = 7  # as a layer in place after this one might
    y.diff[...] = y_diff
    operation.backward(x, y)
    return y_data


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 4), (6,), (1, 2, 5), (3, 1, 1, 1)])
def test_batch_norm_with_batch_statistics_follows_the_formula(
    rig: Any, shape: tuple[int, ...], in_place: bool
) -> None:
    x, y_diff = 2 * rig.normal(*shape) + 3, rig.normal(*shape)
    expected_mean, expected_variance = statistics(x)
    x_blob = rig.blob(x)
    mean, variance = rig.void(expected_mean.shape), rig.void(expected_variance.shape)
    y_data = run(rig, True, x_blob, x_blob if in_place else rig.void(shape), mean, variance, y_diff)
    rig.expect(y_data, normalise(x, expected_mean, expected_variance))
    rig.expect(mean.data, expected_mean)
    rig.expect(variance.data, expected_variance)
    rig.expect_gradient(lambda x: normalise(x, *statistics(x)), x, y_diff, x_blob.diff)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 2, 4), (0, 3, 2)])
def test_batch_norm_with_given_statistics_follows_the_formula(
    rig: Any, shape: tuple[int, ...], in_place: bool
) -> None:
    x, y_diff = rig.normal(*shape), rig.normal(*shape)
    mean, variance = np.array([0.5, -1, 2]), np.array([0.25, 4, 1])
    mean_blob, variance_blob, x_blob = rig.blob(mean), rig.blob(variance), rig.blob(x)
    y_data = run(
        rig, False, x_blob, x_blob if in_place else rig.void(shape), mean_blob, variance_blob, y_diff
    )
    rig.expect(y_data, normalise(x, mean, variance))
    rig.expect_gradient(lambda x: normalise(x, mean, variance), x, y_diff, x_blob.diff)
    assert mean_blob.data.tolist() == mean.tolist()
    assert variance_blob.data.tolist() == variance.tolist()


def test_batch_norm_of_an_empty_batch_has_statistics_of_zero(rig: Any) -> None:
    mean, variance, x = rig.void((3,)), rig.void((3,)), rig.void((0, 3))
    run(rig, True, x, rig.void((0, 3)), mean, variance, np.zeros((0, 3)))
    assert mean.data.tolist() == variance.data.tolist() == [0, 0, 0]
