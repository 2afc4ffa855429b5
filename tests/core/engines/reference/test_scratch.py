from __future__ import annotations

import numpy as np

from dtrain.core.engines.reference.scratch import Scratch


def test_take_of_fewer_values_reuses_the_buffer() -> None:
    scratch = Scratch(np)
    large = scratch.take((4, 5), np.float32)
    small = scratch.take((3, 2), np.float32)
    assert small.shape == (3, 2)
    assert np.shares_memory(large, small)


def test_take_of_more_values_or_another_dtype_makes_a_new_buffer() -> None:
    scratch = Scratch(np)
    first = scratch.take((2,), np.float32)
    for shape, dtype in [((3,), np.float32), ((2,), np.float64)]:
        taken = scratch.take(shape, dtype)
        assert (taken.shape, taken.dtype) == (shape, dtype)
        assert not np.shares_memory(first, taken)
