"""Sums of rows on played devices: their order, which is that of the rows whatever threads do. What they are is tested
for all engines, in reference/.
"""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.operations import RowSumsSpec
from tests.played.cupy import play_cupy


def test_row_sums_add_rows_of_an_index_in_their_order_and_then_to_the_target(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cupy = play_cupy(monkeypatch)
    random = np.random.default_rng(5)
    indices = random.integers(0, 4, 400)
    rows = (random.standard_normal((400, 3)) * 10.0 ** random.integers(-4, 4, (400, 1))).astype(np.float32)
    target, expected = cupy.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
    create_engine("cupy").create(RowSumsSpec((400,))).add(target, cupy.asarray(indices), cupy.asarray(rows))
    for index in range(4):
        total = np.zeros(3, np.float32)
        for row in rows[indices == index]:
            total += row
        expected[index] += total
    np.testing.assert_array_equal(target.get(), expected)
