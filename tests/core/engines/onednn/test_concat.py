from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn.layout_costs import BLOCKED, LAST
from dtrain.core.engines.operations import ConcatSpec
from dtrain.core.tensor import HOST


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


def joined_in(bench: Any, lengths: tuple[int, ...], layouts: tuple[str, ...], planned: str = "") -> Any:
    """Concatenate channels that lie in `layouts`, both ways; return the memory in which y is left."""
    xs = [bench.normal(2, length, 3, 4) for length in lengths]
    blobs = [bench.blob(x, layout) for x, layout in zip(xs, layouts, strict=True)]
    memories = [next(iter(blob.data_tensor.storage.valid)) for blob in blobs]
    y, y_blob = np.concatenate(xs, axis=1), Blob((2, sum(lengths), 3, 4))
    operation = bench.engine.create(ConcatSpec(tuple(x.shape for x in xs), 1))
    if planned:
        operation.work_in(planned)
    operation.forward(blobs, y_blob)
    (memory,) = y_blob.data_tensor.storage.valid
    bench.expect(y_blob.read_data(), y)
    y_blob.write_diff(memory)[...] = y_blob.read_data(memory)
    operation.backward(blobs, y_blob, [True] * len(xs))
    for blob, x, x_memory in zip(blobs, xs, memories, strict=True):
        assert blob.diff_tensor.storage.valid == {x_memory}, "a diff goes back to where its data came from"
        bench.expect(blob.read_diff(), x)
    return memory


@pytest.mark.parametrize(
    ("lengths", "layouts", "planned", "expected"),
    [
        ((16, 48), ("channels last", "blocked"), "", "blocked"),
        ((48, 16), ("channels last", "blocked"), "", "channels last"),
        ((48, 16), ("channels last", "blocked"), BLOCKED, "blocked"),
        ((16, 48), ("plain", "blocked"), "", "blocked"),
        ((48, 16), ("plain", "blocked"), "", "plain"),
        ((48, 16), ("plain", "blocked"), BLOCKED, "blocked"),
        ((16, 16), ("blocked", "blocked"), LAST, "blocked"),  # nothing to bring together
    ],
)
def test_concat_of_several_layouts_is_in_the_planned_one_or_in_that_of_most_values(
    bench: Any, lengths: tuple[int, ...], layouts: tuple[str, ...], planned: str, expected: str
) -> None:
    memory = joined_in(bench, lengths, layouts, planned)
    assert memory is bench.memory(expected, (2, sum(lengths), 3, 4))


def test_concat_that_would_cut_blocks_leaves_plain_values(bench: Any) -> None:
    blobs = [bench.blob(bench.normal(2, 24, 3, 4), "blocked") for _ in range(2)]
    y = Blob((2, 48, 3, 4))
    bench.engine.create(ConcatSpec(tuple(blob.shape for blob in blobs), 1)).forward(blobs, y)
    assert y.data_tensor.storage.valid == {HOST}
