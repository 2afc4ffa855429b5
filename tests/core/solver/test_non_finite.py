from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.solver.non_finite import is_finite

LARGE = np.finfo(np.float32).max

CASES = {
    "numbers": ([1, -2, 0], True),
    "none": ([], True),
    "a NaN": ([1, np.nan, 2], False),
    "infinities that cancel": ([np.inf, -np.inf], False),
    "a sum that overflows": ([LARGE, LARGE], True),
    "an infinity behind a sum that overflows": ([LARGE, LARGE, np.inf], False),
}


@pytest.mark.parametrize(("values", "expected"), CASES.values(), ids=CASES)
def test_is_finite_of(values: list[float], expected: bool) -> None:
    assert is_finite(np.array(values, np.float32)) is expected
