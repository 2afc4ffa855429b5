from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.memory import ChannelsLast, as_images, bits
from dtrain.core.tensor import HOST
from tests.core.engines.cudnn.conftest import Bench

BF16 = ml_dtypes.bfloat16


@pytest.mark.parametrize(
    "shape", [(2, 3, 4, 5), (3, 1, 2, 2), (2, 40, 1, 1), (2, 3, 2, 3, 4), (2, 3, 7), (4, 5)]
)
def test_channels_last_of_values_are_rounded_and_in_their_order(
    make_bench: Callable[..., Bench], shape: tuple[int, ...]
) -> None:
    bench = make_bench("BF16")
    memory = bench.engine.memories.best(shape)
    blob, values = Blob(shape), bench.random.standard_normal(shape).astype(np.float32)
    blob.write_data()[...] = values
    array = blob.read_data(memory)
    assert array.dtype == BF16
    expected = np.moveaxis(values.reshape(as_images(shape)), 1, -1).astype(BF16)
    np.testing.assert_array_equal(array.get(), expected)


def test_channels_last_reach_host_and_plain_memory_as_they_are(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("FLOAT16")
    memory, plain = bench.engine.memories.best((2, 3, 4, 5)), bench.engine.memory
    values = bench.random.standard_normal((2, 4, 5, 3)).astype(np.float16)
    for target in (plain, HOST):
        blob = Blob((2, 3, 4, 5))
        blob.write_data(memory)[...] = bench.engine.xp.asarray(values)
        found = blob.read_data(target)
        found = found if target is HOST else found.get()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.moveaxis(values, -1, 1))
        assert (HOST in blob.data_tensor.storage.copies) == (target is HOST)


def test_channels_last_of_one_shape_become_those_of_another_on_the_device(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench("BF16")
    first, second = bench.engine.memories.best((2, 6, 2, 2)), bench.engine.memories.best((2, 3, 2, 4))
    values = bench.random.integers(-9, 9, (2, 6, 2, 2))
    blob = Blob((2, 6, 2, 2))
    blob.write_data(first)[...] = bench.engine.xp.asarray(np.moveaxis(values, 1, -1).astype(BF16))
    blob.reshape(2, 3, 2, 4)
    found = blob.read_data(second).get()
    np.testing.assert_array_equal(found, np.moveaxis(values.reshape(2, 3, 2, 4), 1, -1).astype(BF16))
    assert HOST not in blob.data_tensor.storage.copies


def test_of_values_is_where_the_newest_ones_lie(make_bench: Callable[..., Bench]) -> None:
    memories = make_bench("BF16").engine.memories
    blob, last = Blob((2, 3, 4, 4)), memories.best((2, 3, 4, 4))
    assert memories.of(blob.data_tensor, (2, 3, 4, 4)) is memories.plain
    blob.write_data(last)
    assert memories.of(blob.data_tensor, (2, 3, 4, 4)) is last
    assert memories.of(blob.data_tensor, (2, 3, 2, 8)) is memories.plain
    blob.update_data(memories.plain)
    assert memories.of(blob.data_tensor, (2, 3, 4, 4)) is memories.plain


def test_best_in_float32_is_plain(make_bench: Callable[..., Bench]) -> None:
    memories = make_bench("FLOAT32").engine.memories
    assert memories.best((2, 3, 4, 4)) is memories.plain
    assert memories.dtype(memories.plain) == "float32"
    halves = make_bench("BF16").engine.memories
    assert halves.best((2, 3, 4, 4), half=False) is halves.plain
    assert halves.best((2, 3, 4)) is halves.best((2, 3, 1, 4))
    assert isinstance(halves.best((2, 3, 4)), ChannelsLast)


@pytest.mark.parametrize(
    ("shape", "images"),
    [
        ((2, 3), (2, 3, 1, 1)),
        ((2, 3, 7), (2, 3, 1, 7)),
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        ((2, 3, 4, 5, 6), (2, 3, 4, 5, 6)),
    ],
)
def test_as_images_has_two_spatial_axes_or_more(shape: tuple[int, ...], images: tuple[int, ...]) -> None:
    assert as_images(shape) == images


def test_bits_of_halves_are_whole_numbers(make_bench: Callable[..., Bench]) -> None:
    xp = make_bench().engine.xp
    half, single = xp.asarray(np.array([1.0, -2.0], BF16)), xp.zeros(2, np.float32)
    assert bits(half).get().tolist() == [0x3F80, 0xC000]
    assert bits(single) is single
