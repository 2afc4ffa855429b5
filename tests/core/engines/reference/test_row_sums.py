"""Sums of many rows into few."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.operations import RowSumsSpec
from dtrain.core.tensor import Tensor
from tests.core.engines.conftest import Rig


@pytest.mark.parametrize("row_shape", [(3,), (), (2, 2), (0,)])
@pytest.mark.parametrize("num_rows", [0, 1, 50, 300])
def test_row_sums_add_all_rows_of_an_index(rig: Rig, num_rows: int, row_shape: tuple[int, ...]) -> None:
    indices = rig.random.integers(0, 7, num_rows)
    rows, target = rig.normal(num_rows, *row_shape), Tensor((9, *row_shape), rig.dtype)
    target.write()[...] = 2
    operation, xp = rig.engine.create(RowSumsSpec((num_rows,))), rig.engine.xp
    operation.add(target.update(rig.engine.memory), xp.asarray(indices), xp.asarray(rows.astype(rig.dtype)))
    expected = np.full((9, *row_shape), 2.0)
    for index, row in zip(indices, rows, strict=True):
        expected[index] += row
    rig.expect(target.read(), expected)
