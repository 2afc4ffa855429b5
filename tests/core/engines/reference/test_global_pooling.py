"""Tests of core/engines/reference/global_pooling.py; its values and gradients: test_pooling.py, global rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.operations import PoolingSpec
from dtrain.core.engines.reference.global_pooling import is_global


@pytest.mark.parametrize(
    ("kernel", "output", "pad", "expected"),
    [
        ((3, 4), (1, 1), (0, 0), True),
        ((3, 3), (1, 1), (0, 0), False),
        ((3, 4), (1, 1), (0, 1), False),
        ((3, 4), (2, 1), (0, 0), False),
    ],
)
def test_is_global_of_one_window_that_is_the_plane(
    kernel: Any, output: Any, pad: Any, expected: bool
) -> None:
    assert is_global(PoolingSpec((2, 5, 3, 4), (2, 5, *output), "MAX", kernel, (1, 1), pad)) is expected


def test_global_max_pooling_shows_a_nan(rig: Any) -> None:
    spec = PoolingSpec((1, 2, 1, 2), (1, 2, 1, 1), "MAX", (1, 2), (1, 1), (0, 0))
    y = rig.void(spec.y_shape)
    rig.engine.create(spec).forward(
        rig.blob(np.array([[[[rig.neighbour_of_nan, np.nan]], [[2, 3]]]])), y, None
    )
    assert np.isnan(y.data).ravel().tolist() == [True, False]
