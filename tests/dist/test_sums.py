from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from dtrain.dist.communicator import BFLOAT16
from dtrain.dist.sums import slice_bounds, sum_in_order


def test_sum_in_order_adds_from_the_first_to_the_last() -> None:
    # In float32, (1e8 - 1e8) + 1 = 1, and (1e8 + 1) - 1e8 = 0.
    parts = [np.array([value], np.float32) for value in (1e8, -1e8, 1.0)]
    for order, total in (([0, 1, 2], 1.0), ([0, 2, 1], 0.0)):
        out = np.empty(1, np.float32)
        sum_in_order([parts[number] for number in order], out)
        assert out[0] == total


@pytest.mark.parametrize(
    ("dtype", "large", "total"),
    # Above 2048 float16 has the even numbers, above 256 bfloat16: (2048 + 1) + 1 is 2048 if rounded each time.
    [("float16", 2048, 2050), (BFLOAT16, 256, 258)],
    ids=str,
)
def test_sum_in_order_of_halves_rounds_once(dtype: Any, large: int, total: int) -> None:
    parts = [np.array([value], dtype) for value in (large, 1, 1)]
    sum_in_order(parts, parts[0])
    assert parts[0][0] == total


def test_sum_in_order_of_float32_into_halves_rounds_once() -> None:
    out = np.empty(1, np.float16)
    sum_in_order([np.array([value], np.float32) for value in (2048, 1, 1)], out)
    assert out[0] == 2050


def test_sum_in_order_above_the_range_of_halves_is_infinite_without_a_warning() -> None:
    parts = [np.full(1, 60_000, np.float16) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sum_in_order(parts, parts[0])
    assert np.isposinf(parts[0][0])


def test_sum_in_order_of_one_part_copies_it() -> None:
    out = np.empty(3, np.int64)
    sum_in_order([np.arange(3)], out)
    assert out.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("num_elements", "world_size", "bounds"),
    [(0, 2, [0, 0, 0]), (1, 3, [0, 0, 0, 1]), (7, 2, [0, 3, 7]), (8, 4, [0, 2, 4, 6, 8])],
)
def test_slice_bounds_table(num_elements: int, world_size: int, bounds: list[int]) -> None:
    assert slice_bounds(num_elements, world_size) == bounds
