"""BatchNorm's running sums on played devices, bit for bit what the formula gives in the blobs' type."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.operations import RunningSumsSpec
from tests.played.cupy import play_cupy


@pytest.mark.parametrize("count", [1, 7, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_sums_are_a_fraction_of_themselves_and_the_batch_s(
    monkeypatch: pytest.MonkeyPatch, dtype: type, count: int
) -> None:
    play_cupy(monkeypatch)
    random, unbiased, fraction = np.random.default_rng(1), dtype(8 / 7), dtype(0.9)
    mean, variance, *sums = (Blob(shape, dtype) for shape in [*[(count,)] * 4, (1,)])
    for blob in (mean, variance, *sums):
        blob.data[...] = random.random(blob.shape)
    added = (mean.data, variance.data * unbiased, dtype(1))
    expected = [blob.data * fraction + value for blob, value in zip(sums, added, strict=True)]
    create_engine("cupy").create(RunningSumsSpec((count,), 0.9)).enter(mean, variance, sums, 8 / 7)
    for blob, values in zip(sums, expected, strict=True):
        np.testing.assert_array_equal(blob.data, values)
