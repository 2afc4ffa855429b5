from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.onednn.engine import OneDnnEngine
from dtrain.core.engines.onednn.layouts import make_reorder
from dtrain.core.tensor import HOST, Tensor

SHAPE = (2, 20, 3, 4)


@pytest.mark.parametrize("source", ["plain", "channels last", "blocked"])
@pytest.mark.parametrize("target", ["plain", "channels last", "blocked"])
def test_reading_values_in_another_layout_keeps_them(bench: Any, source: str, target: str) -> None:
    x = bench.normal(*SHAPE)
    blob = bench.blob(x, source)
    values = blob.read_data(bench.memory(target, SHAPE))
    order = (0, 2, 3, 1) if target == "channels last" else (0, 1, 2, 3)
    if target == "blocked":  # two blocks of 16 channels, the last 12 of which are 0
        blocks = np.moveaxis(values.reshape(2, 2, 3, 4, 16), -1, 2).reshape(2, 32, 3, 4)
        np.testing.assert_array_equal(blocks[:, :20], x.astype(np.float32))
        assert not blocks[:, 20:].any()
    else:
        np.testing.assert_array_equal(values.ravel(), x.transpose(order).ravel().astype(np.float32))


def test_take_between_two_layouts_leaves_the_host_out(bench: Any) -> None:
    tensor = Tensor(SHAPE)
    tensor.write(bench.memory("blocked", SHAPE))[...] = 1
    tensor.read(bench.memory("channels last", SHAPE))
    assert HOST not in tensor.storage.copies


def test_take_from_a_layout_of_another_shape_goes_by_the_host(bench: Any) -> None:
    x = bench.normal(2, 20, 3, 4)
    blob = bench.blob(x, "blocked")
    other = Blob((2, 60, 2, 2))
    other.share_data(blob)
    values = other.read_data(bench.memory("channels last", other.shape))
    expected = x.reshape(other.shape).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(values.ravel(), expected.ravel().astype(np.float32))


def test_blob_data_of_values_in_a_layout_is_plain_and_may_be_changed(bench: Any) -> None:
    x = bench.normal(*SHAPE)
    blob = bench.blob(x, "blocked")
    np.testing.assert_array_equal(blob.data, x.astype(np.float32))
    blob.data[1, 3] = 7
    values = blob.read_data(bench.memory("channels last", SHAPE)).reshape(2, 3, 4, 20)
    assert np.all(values[1, :, :, 3] == 7)


def test_memory_of_equal_descriptors_is_one(bench: Any) -> None:
    layouts = bench.engine.layouts
    one, other = (layouts.memory(layouts.channels_last(SHAPE), SHAPE) for _ in range(2))
    assert one is other
    assert one is not layouts.memory(layouts.channels_last((3, 20, 3, 4)), (3, 20, 3, 4))


def test_memory_of_a_layout_that_is_plain_is_the_host(bench: Any) -> None:
    layouts = bench.engine.layouts
    shape = (2, 20, 1, 1)  # where the channels are last anyhow
    assert layouts.memory(layouts.channels_last(shape), shape) is HOST


def test_memory_of_float64_is_a_bug(bench: Any) -> None:
    with pytest.raises(AssertionError, match="keeps float32 and bf16 in its layouts, got float64"):
        Blob(SHAPE, np.float64).read_data(bench.memory("blocked", SHAPE))


def test_of_a_tensor_in_several_layouts_is_the_one_that_was_known_first(bench: Any) -> None:
    first, second = bench.memory("channels last", SHAPE), bench.memory("blocked", SHAPE)
    if first.number > second.number:
        first, second = second, first
    tensor = Tensor(SHAPE)
    for memory in (second, first, HOST):
        tensor.read(memory)
    assert bench.engine.layouts.of(tensor, SHAPE) is first
    assert bench.engine.layouts.of(tensor, (2, 240)) is HOST


@pytest.mark.parametrize("layout", ["channels last", "blocked"])
def test_bringing_values_into_bf16_rounds_them_to_the_nearest_even(bf16_bench: Any, layout: str) -> None:
    step = 2.0**-7  # between the bf16 numbers from 1 to 2
    values = [1 + 0.49 * step, 1 + 0.5 * step, 1 + 1.5 * step, -1 - 0.51 * step, 3.0e38, 1e-30, 0.1]
    steps = [2.0 ** (math.floor(math.log2(abs(value))) - 7) for value in values]
    expected = [round(value / each) * each for value, each in zip(values, steps, strict=True)]
    x = np.array([*values, np.inf, -0.0]).reshape(1, 9, 1, 1)
    blob = bf16_bench.blob(x, layout)
    np.testing.assert_array_equal(blob.read_data().ravel(), np.float32([*expected, np.inf, 0]))


def test_plain_values_in_bf16_are_not_the_hosts(bf16_bench: Any) -> None:
    layouts, binding = bf16_bench.engine.layouts, bf16_bench.engine.binding
    memory = layouts.memory(binding.plain(SHAPE, (), bf16_bench.values), SHAPE)
    assert memory is not HOST
    assert memory.rounds
    assert memory.allocate(480, np.float32).nbytes == 2 * 480


def test_values_are_taken_from_where_they_are_not_rounded(bench: Any, bf16_bench: Any) -> None:
    """Whichever layout was known first, and whatever the order within a set."""
    rounded = bf16_bench.memory("blocked", SHAPE)
    bench = type(bench)(bf16_bench.engine)
    exact, other = bench.memory("channels last", SHAPE), bench.memory("blocked", SHAPE)
    value = np.float32(1.001)
    for memories in ((exact, rounded), (rounded, exact)):
        tensor = Tensor(SHAPE)
        tensor.write(exact)[...] = value
        tensor.read(rounded)
        tensor.storage.valid = set()
        for memory in memories:
            tensor.storage.valid.add(memory)
        assert bench.engine.layouts.of(tensor, SHAPE) is exact
        assert set(np.unique(tensor.read(other))) == {0, value}  # 0 fills up the blocks
        tensor.storage.valid = set(memories)
        assert np.all(tensor.read() == value)


def test_make_reorder_that_accumulates_adds(bench: Any) -> None:
    layouts = bench.engine.layouts
    blob = bench.blob(np.ones(SHAPE), "blocked")
    memory, host = bench.memory("blocked", SHAPE), np.full(SHAPE, 5, np.float32)
    reorder = make_reorder(bench.engine.binding, memory.descriptor, layouts.plain(SHAPE), accumulates=True)
    reorder.run(blob.read_data(memory), host)
    assert np.all(host == 6)


def test_flat_covers_the_zeros_that_fill_up_a_layout(bench: Any) -> None:
    flat = bench.engine.layouts.flat
    assert flat(HOST, SHAPE).num_bytes == 4 * 2 * 20 * 12
    assert flat(bench.memory("blocked", SHAPE), SHAPE).num_bytes == 4 * 2 * 32 * 12


def test_flat_of_bf16_has_as_many_values(bf16_bench: Any) -> None:
    row = bf16_bench.engine.layouts.flat(bf16_bench.memory("blocked", SHAPE), SHAPE)
    assert (row.num_bytes, row.type) == (2 * 2 * 32 * 12, bf16_bench.values)


def test_reshape_gives_back_layouts_of_the_shape_before(bench: Any) -> None:
    tensor = Tensor(SHAPE)
    memory = bench.memory("blocked", SHAPE)
    tensor.read(memory)
    tensor.update()
    tensor.reshape((1, 20, 3, 4))
    assert list(tensor.storage.copies) == [HOST]


def test_layouts_of_shapes_that_are_no_more_are_forgotten(bench: Any) -> None:
    engine = create_engine("onednn")
    assert isinstance(engine, OneDnnEngine)
    bench = type(bench)(engine)
    arrays = []
    for num_items in range(1, 6):
        blob = bench.blob(bench.normal(num_items, 20, 3, 4), "blocked")
        arrays += [weakref.ref(array) for array in blob.data_tensor.storage.copies.values()]
        arrays.append(weakref.ref(bench.memory("blocked", blob.shape)))
        del blob
    gc.collect()
    assert [array() for array in arrays] == [None] * 15
