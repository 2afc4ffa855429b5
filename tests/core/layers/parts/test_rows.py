"""Rows by number: sums of many rows into few. Which indices are refused is in test_index_layers.py."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.layers.parts.rows import add_rows, read_indices
from tests.core.layers.layer_harness import make_layer


@pytest.mark.parametrize("row_shape", [(3,), (), (2, 2), (0,)])
@pytest.mark.parametrize("num_indices", [0, 1, 50])
def test_add_rows_sums_all_rows_of_an_index(num_indices: int, row_shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(num_indices)
    indices, rows = random.integers(0, 7, num_indices), random.standard_normal((num_indices, *row_shape))
    target = np.full((9, *row_shape), 2.0)
    add_rows(np, target, indices, rows)
    expected = np.full((9, *row_shape), 2.0)
    for index, row in zip(indices, rows, strict=True):
        expected[index] += row
    np.testing.assert_allclose(target, expected, rtol=1e-12)


def test_read_indices_are_whole_numbers_in_row_major_order() -> None:
    blob = Blob((2, 2))
    blob.data[...] = [[3, 0], [1, 2]]
    indices = read_indices(make_layer('type: "Embed"', 1), blob, 0, 4, "")
    assert (indices.dtype, indices.tolist()) == (np.int64, [3, 0, 1, 2])
