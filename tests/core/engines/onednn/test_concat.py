from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ConcatSpec


@pytest.mark.parametrize("diff_layout", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize(
    "layouts",
    [("plain",) * 3, ("blocked",) * 3, ("channels last",) * 3, ("plain", "blocked", "channels last")],
    ids=["plain", "blocked", "channels last", "mixed"],
)
@pytest.mark.parametrize("lengths", [(16, 32, 16), (5, 16, 20)])
def test_concat_of_channels_in_any_layouts_is_the_parts_one_after_the_other(
    bench: Any, lengths: tuple[int, ...], layouts: tuple[str, ...], diff_layout: str
) -> None:
    xs = [bench.normal(2, length, 3, 4) for length in lengths]
    y, y_diff = np.concatenate(xs, axis=1), bench.normal(2, sum(lengths), 3, 4)
    blobs = [bench.blob(x, layout) for x, layout in zip(xs, layouts, strict=True)]
    y_blob = Blob(y.shape)
    operation = bench.engine.create(ConcatSpec(tuple(x.shape for x in xs), 1))
    operation.forward(blobs, y_blob)
    bench.expect(y_blob.read_data(), y)
    y_blob.diff[...] = y_diff
    bench.place(y_blob.diff_tensor, diff_layout)
    operation.backward(blobs, y_blob, [True, False, True])
    parts = np.split(y_diff, np.cumsum(lengths)[:-1], axis=1)
    bench.expect(blobs[0].diff, parts[0])
    assert np.isnan(blobs[1].diff).all()
    bench.expect(blobs[2].diff, parts[2])


@pytest.mark.parametrize("axis", [0, 2, 3])
@pytest.mark.parametrize("layout", ["plain", "blocked"])
def test_concat_along_another_axis_is_the_parts_one_after_the_other(
    bench: Any, axis: int, layout: str
) -> None:
    shapes = [tuple(n + i * (a == axis) for a, n in enumerate((2, 20, 3, 4))) for i in range(2)]
    xs = [bench.normal(*shape) for shape in shapes]
    y = np.concatenate(xs, axis=axis)
    blobs, y_blob = [bench.blob(x, layout) for x in xs], Blob(y.shape)
    operation = bench.engine.create(ConcatSpec(tuple(shapes), axis))
    operation.forward(blobs, y_blob)
    bench.expect(y_blob.data, y)
    y_blob.diff[...] = y
    operation.backward(blobs, y_blob, [True, True])
    for blob, x in zip(blobs, xs, strict=True):
        bench.expect(blob.diff, x)


@pytest.mark.parametrize("diff_layout", ["plain", "blocked"])
@pytest.mark.parametrize("types", ["bf16 bf16", "bf16 float32", "float32 bf16", "bf16 plain"])
@pytest.mark.parametrize("lengths", [(16, 32), (5, 16)])
def test_concat_with_bf16_is_the_parts_one_after_the_other(
    bench: Any, bf16_bench: Any, lengths: tuple[int, ...], types: str, diff_layout: str
) -> None:
    xs = [bf16_bench.normal(2, length, 3, 4) for length in lengths]
    blobs = [
        (bf16_bench if which == "bf16" else bench).blob(x, "plain" if which == "plain" else "blocked")
        for x, which in zip(xs, types.split(), strict=True)
    ]
    y, y_diff = np.concatenate(xs, axis=1), bf16_bench.normal(2, sum(lengths), 3, 4)
    y_blob = Blob(y.shape)
    operation = bf16_bench.engine.create(ConcatSpec(tuple(x.shape for x in xs), 1))
    operation.forward(blobs, y_blob)
    np.testing.assert_array_equal(y_blob.read_data(), y)
    y_blob.diff[...] = y_diff
    bf16_bench.place(y_blob.diff_tensor, diff_layout)
    operation.backward(blobs, y_blob, [True, True])
    for blob, part in zip(blobs, np.split(y_diff, lengths[:1], axis=1), strict=True):
        np.testing.assert_array_equal(blob.diff, part)
