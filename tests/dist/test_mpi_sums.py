"""The sums are in test_communicator.py and test_reduction.py, over mpi.py; here is how arrays fall into chunks."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.dist.mpi_sums import chunks


@pytest.mark.parametrize(
    ("shape", "dtype", "sizes"),
    [
        ((), "float32", [1]),
        ((0,), "float32", []),
        ((16,), "float32", [16]),
        ((17,), "float32", [16, 1]),
        ((5, 7), "float16", [32, 3]),
        ((9,), "float64", [8, 1]),
    ],
)
def test_chunks_of_64_bytes_table(shape: tuple[int, ...], dtype: str, sizes: list[int]) -> None:
    array = np.zeros(shape, dtype)
    found = list(chunks(array, 64))
    assert [chunk.size for chunk in found] == sizes
    for number, chunk in enumerate(found):
        chunk[...] = number + 1  # views: the array itself is written
    expected = [number + 1 for number, size in enumerate(sizes) for _ in range(size)]
    assert array.reshape(-1).tolist() == expected
