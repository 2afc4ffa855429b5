"""What tests of nets whose blobs share memory have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from dtrain.core.memory_pool import MemoryPool

Array = NDArray[Any]


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill with NaN what a pool lends and what it gets back."""
    lend, give_back = MemoryPool.lend, MemoryPool.give_back

    def lend_spoiled(pool: MemoryPool, num_bytes: int, dtype: DTypeLike = np.uint8) -> Array:
        piece = lend(pool, num_bytes, dtype)
        piece.view(np.uint8).fill(0xFF)
        return piece

    def give_back_spoiled(pool: MemoryPool, piece: Array) -> None:
        piece.view(np.uint8).fill(0xFF)
        give_back(pool, piece)

    monkeypatch.setattr(MemoryPool, "lend", lend_spoiled)
    monkeypatch.setattr(MemoryPool, "give_back", give_back_spoiled)
