from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.dist.memory import ALIGNMENT_BYTES, aligned_zeros


@pytest.mark.parametrize("count", [1, 17, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_aligned_zeros_start_on_a_cache_line(count: int, dtype: Any) -> None:
    zeros = aligned_zeros(count, dtype)
    assert zeros.shape == (count,)
    assert zeros.dtype == dtype
    assert not zeros.any()
    assert zeros.ctypes.data % ALIGNMENT_BYTES == 0
