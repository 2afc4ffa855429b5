from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.dist.memory import ALIGNMENT_BYTES, aligned_zeros, give_back_freed


@pytest.mark.parametrize("count", [1, 17, 1000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_aligned_zeros_start_on_a_cache_line(count: int, dtype: Any) -> None:
    zeros = aligned_zeros(count, dtype)
    assert zeros.shape == (count,)
    assert zeros.dtype == dtype
    assert not zeros.any()
    assert zeros.ctypes.data % ALIGNMENT_BYTES == 0


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_give_back_freed_lowers_what_the_process_has() -> None:
    size = (
        1 << 14
    )  # small enough to lie in the heap, where the last one keeps the others from being given back
    arrays = [np.ones(size, np.uint8) for _ in range(4000)]
    last = arrays[-1]
    arrays.clear()
    before = resident_bytes()
    give_back_freed()
    assert resident_bytes() < before - 1000 * size
    assert last.all()


def resident_bytes() -> int:
    """Return how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
