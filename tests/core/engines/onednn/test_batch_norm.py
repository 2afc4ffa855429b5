from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import BatchNormSpec, ScaledBatchNormSpec, Wanted


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


@pytest.mark.parametrize("layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("batch_statistics", [False, True])
@pytest.mark.parametrize("has_shift", [False, True])
def test_scaled_batch_norm_gives_what_norm_and_scale_of_the_reference_give(
    bench: Any, layout: str, in_place: bool, batch_statistics: bool, has_shift: bool
) -> None:
    norm = BatchNormSpec((4, 20, 3, 5), 1e-3, batch_statistics)
    x_values, y_diff = bench.normal(*norm.x_shape), bench.normal(*norm.x_shape)
    mean, variance = bench.normal(20), 0.5 + np.abs(bench.normal(20))
    scale_values, shift_values = 1 + bench.normal(20), bench.normal(20)
    before = bench.normal(20)  # gradients are added to

    plain = bench.reference.create(norm)
    x, y = bench.exact(x_values), bench.exact(x_values)
    plain.forward(x, y, bench.exact(mean), bench.exact(variance))
    normalised = y.data.copy()
    by_channel = (1, 20, 1, 1)
    expected_y = normalised * scale_values.reshape(by_channel) + has_shift * shift_values.reshape(by_channel)
    y.diff[...] = y_diff * scale_values.reshape(by_channel)
    plain.backward(x, y)
    expected_scale = before + (y_diff * normalised).sum(axis=(0, 2, 3))
    expected_shift = before + y_diff.sum(axis=(0, 2, 3))

    mine = bench.engine.create(ScaledBatchNormSpec(norm, has_shift))
    own_x = bench.blob(x_values, layout)
    own_y = own_x if in_place else Blob(norm.x_shape)
    blobs = [Blob((20,)) for _ in range(4)]
    for blob, values in zip(blobs, (mean, variance, scale_values, shift_values), strict=True):
        blob.data[...], blob.diff[...] = values, before
    scale, shift = blobs[2], blobs[3] if has_shift else None
    mine.forward(own_x, own_y, *blobs[:2], scale, shift)
    bench.expect(own_y.data, expected_y)
    own_y.diff[...] = y_diff
    mine.backward(own_x, own_y, scale, shift, Wanted(x=True, weight=True, bias=True))
    bench.expect(own_x.diff, x.diff)
    bench.expect(scale.diff, expected_scale)
    if shift is not None:
        bench.expect(shift.diff, expected_shift)
    unwanted = scale.diff.copy()
    mine.backward(own_x, own_y, scale, shift, Wanted(x=True, weight=False, bias=False))
    bench.expect(scale.diff, unwanted)
