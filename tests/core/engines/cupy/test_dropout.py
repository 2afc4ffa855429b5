"""The kernel of dropout against numpy's own generator; tests/core/engines/reference has what all engines do."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines.cupy.dropout import take_stream
from dtrain.core.engines.cupy.engine import CupyEngine
from dtrain.core.engines.cupy.kernels import Kernel
from dtrain.core.engines.operations import DropoutSpec
from dtrain.core.random_streams import RandomStreams

RATIO = 0.3


def ones(engine: CupyEngine, count: int, dtype: Any = np.float32) -> Blob:
    blob = Blob((count,), dtype)
    blob.write_data(engine.memory)[...] = 1
    return blob


def drop(engine: CupyEngine, random: np.random.Generator, count: int, dtype: Any = np.float32) -> Any:
    """Return 1 where a value is kept, after forward and after backward, which agree."""
    x, y = ones(engine, count, dtype), Blob((count,), dtype)
    operation = engine.create(DropoutSpec((count,), RATIO, 1.0))
    operation.forward(x, y, random)
    y.write_diff(engine.memory)[...] = 1
    operation.backward(x, y)
    assert (x.diff == y.data).all()
    return y.data


def mask(random: np.random.Generator, count: int) -> Any:
    return random.random(count, dtype=np.float32) >= RATIO


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("count", [1, 8, 13, 5000])
def test_dropout_draws_what_numpy_draws(engine: CupyEngine, count: int, dtype: Any) -> None:
    streams = RandomStreams(seed=2**63 + 5, rank=3)
    streams.pass_index = 77
    expected = mask(streams.for_pass("drop"), count)
    assert (drop(engine, streams.for_pass("drop"), count, dtype) == expected).all()


@pytest.mark.parametrize("first", [3, 8, 16, 21])
def test_dropout_leaves_the_generator_as_if_it_had_drawn(engine: CupyEngine, first: int) -> None:
    random, reference = (RandomStreams(1).for_pass("drop") for _ in range(2))
    for count in (
        first,
        40,
    ):  # the second begins in the middle of a block, or of a word, unless `first` fills blocks
        assert (drop(engine, random, count) == mask(reference, count)).all()


def test_dropout_of_a_counter_about_to_overflow_carries(engine: CupyEngine) -> None:
    full = 2**64 - 1

    def generator() -> np.random.Generator:
        counter = np.array([full - 1, full, 5, 6], np.uint64)
        return np.random.Generator(np.random.Philox(key=[1, 2], counter=counter))

    assert (drop(engine, generator(), 64) == mask(generator(), 64)).all()


def test_dropout_replayed_draws_the_masks_of_later_passes(engine: CupyEngine) -> None:
    streams = RandomStreams(4)
    streams.pass_index = 10
    random = streams.for_pass("drop")
    engine.replays[...] = 5
    streams.pass_index = 15
    assert (drop(engine, random, 100) == mask(streams.for_pass("drop"), 100)).all()


def test_dropout_in_place_multiplies_by_numpy_s_factors(engine: CupyEngine) -> None:
    values = np.random.default_rng(2).standard_normal(50).astype(np.float32)
    values[7] = np.inf
    scale = np.float32(1 / 0.7)
    x = Blob((50,))
    x.data[...] = values
    operation = engine.create(DropoutSpec((50,), RATIO, 1 / 0.7))
    operation.forward(x, x, RandomStreams(5).for_pass("drop"))
    with np.errstate(invalid="ignore"):
        expected = values * (mask(RandomStreams(5).for_pass("drop"), 50) * scale)
    np.testing.assert_array_equal(x.data, expected)


@pytest.mark.parametrize("c_type", ["float", "double", "Half", "Bfloat16"])
@pytest.mark.parametrize("first", [0, 1])
def test_dropout_kernel_takes_values_of_any_type_and_address(cupy: Any, c_type: str, first: int) -> None:
    dtype = {"float": np.float32, "double": np.float64, "Half": np.float16, "Bfloat16": ml_dtypes.bfloat16}[
        c_type
    ]
    number = np.float64 if dtype is np.float64 else np.float32
    stream = take_stream(RandomStreams(6).for_pass("drop"), 60)
    assert stream is not None
    kernel = Kernel(cupy, "dropout", VALUE=c_type, NUMBER="double" if dtype is np.float64 else "float")
    x, y = cupy.asarray(np.ones(60 + first, dtype))[first:], cupy.zeros(60 + first, dtype)[first:]
    sizes = np.int64(60), np.float32(RATIO), number(2)
    kernel.run(8, x, y, *sizes, *stream, cupy.zeros(1, np.uint64))
    assert (y.get() == 2 * mask(RandomStreams(6).for_pass("drop"), 60)).all()


def test_dropout_by_another_generator_is_drawn_on_the_host(engine: CupyEngine) -> None:
    assert (drop(engine, np.random.default_rng(8), 100) == mask(np.random.default_rng(8), 100)).all()
