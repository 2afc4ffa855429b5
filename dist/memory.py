"""Host memory that arrays start in at a cache line: what communicators, arenas and engines allocate.

In the flow prototxt → graph → net → solver → communicator → snapshot every stage's large arrays come from here,
unless a communicator or an engine has better memory.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register of today's CPUs


def aligned_zeros(count: int, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Return `count` zeros in one dimension, starting on a cache line."""
    num_bytes = count * np.dtype(dtype).itemsize
    raw = np.zeros(num_bytes + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + num_bytes].view(dtype)


def give_back_freed() -> None:
    """Let the C library return to the system what was freed and it keeps for later; none but glibc does so."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
