"""The kernels of conversions against numpy's transposes and the casts of numpy and ml_dtypes, to the last bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from dtrain.core.engines.cupy.convert import Converter

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
SHAPES = [(2, 3, 5, 7), (1, 40, 3, 11), (3, 33, 65), (2, 1, 4, 4), (5, 6, 1, 1), (4, 7), (0, 3, 2, 2)]


def edges() -> Any:
    """Return float32 of every exponent, sign and way to round, and what is not finite."""
    patterns = np.arange(0, 2**32, 2**13 // 2 - 1, dtype=np.uint64).astype(
        np.uint32
    )  # ties and neighbours, too
    ties = (np.arange(2**16, dtype=np.uint32) << 16)[:, None] + np.array([0x8000, 0x7FFF, 0x8001], np.uint32)
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = (halves[:-1].astype(np.float64) + halves[1:].astype(np.float64)) / 2
    bits = np.concatenate([patterns, ties.ravel()]).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.concatenate([bits, halves, between.astype(np.float32)])


def cast_there(cupy: Any, values: Any, dtype: Any) -> Any:
    out = cupy.zeros(values.size, dtype)
    Converter(cupy).cast(cupy.asarray(values), out)
    return out.get()


def same_bits(actual: Any, expected: Any) -> None:
    """Assert that arrays have the same bits where they are numbers, and NaN in the same places."""
    are_nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), are_nan)
    width = {2: np.uint16, 4: np.uint32}[expected.dtype.itemsize]
    np.testing.assert_array_equal(actual.view(width)[~are_nan], expected.view(width)[~are_nan])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered in cast")
def test_cast_rounds_every_kind_of_value_as_numpy_does(cupy: Any, dtype: Any) -> None:
    values = edges()
    same_bits(cast_there(cupy, values, dtype), values.astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_cast_of_all_values_of_16_bits_to_float32_is_exact(cupy: Any, dtype: Any) -> None:
    values = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):
        expected = values.astype(np.float32)
    same_bits(cast_there(cupy, values, np.float32), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_to_channels_last_and_first_exchange_axes(cupy: Any, shape: tuple[int, ...], dtype: Any) -> None:
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    expected = np.ascontiguousarray(np.moveaxis(values, 1, -1)).astype(dtype)
    there, back = cupy.zeros(expected.shape, dtype), cupy.zeros(shape, np.float32)
    converter = Converter(cupy)
    converter.to_channels_last(cupy.asarray(values), there, shape)
    same_bits(there.get(), expected)
    converter.to_channels_first(there, back, shape)
    same_bits(back.get(), values.astype(dtype).astype(np.float32))


def test_to_channels_last_of_more_matrices_than_blocks_does_all(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtrain.core.engines.cupy.convert._MAX_MATRICES", 2)
    values = np.random.default_rng(1).standard_normal((5, 34, 3)).astype(np.float32)
    there = cupy.zeros((5, 3, 34), np.float32)
    Converter(cupy).to_channels_last(cupy.asarray(values), there, values.shape)
    np.testing.assert_array_equal(there.get(), values.transpose(0, 2, 1))
