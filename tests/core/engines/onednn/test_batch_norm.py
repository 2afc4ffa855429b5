from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import BatchNormSpec


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
def test_batch_norm_in_each_layout_gives_what_the_reference_gives(
    bench: Any, layout: str, in_place: bool, batch_statistics: bool
) -> None:
    spec = BatchNormSpec((4, 20, 3, 5), 1e-3, batch_statistics)
    given = bench.normal(20), 0.5 + np.abs(bench.normal(20))
    statistics = []

    def run(operation: Any, x: Blob, y: Blob) -> None:
        blobs = [Blob((20,), x.dtype) for _ in range(2)]
        for blob, values in zip(blobs, given, strict=True):
            blob.data[...] = values
        operation.forward(x, y, *blobs)
        statistics.append([blob.data.copy() for blob in blobs])
        for blob in blobs:
            blob.data[...] = np.nan  # backward must not need them again

    bench.check_unary(spec, layout, run, in_place)
    for expected, actual in zip(*statistics, strict=True):
        bench.expect(actual, expected)


def test_batch_norm_in_place_does_not_mind_what_is_written_over_y(bench: Any) -> None:
    spec = BatchNormSpec((4, 20, 3, 5), 1e-3, True)
    x, y_diff = bench.normal(*spec.x_shape), bench.normal(*spec.x_shape)
    diffs = []
    for engine, blob in ((bench.reference, bench.exact(x)), (bench.engine, bench.blob(x, "blocked"))):
        operation = engine.create(spec)
        operation.forward(blob, blob, *(Blob((20,), blob.dtype) for _ in range(2)))
        blob.data[...] = -7
        blob.diff[...] = y_diff
        operation.backward(blob, blob)
        diffs.append(blob.diff)
    bench.expect(diffs[1], diffs[0])
