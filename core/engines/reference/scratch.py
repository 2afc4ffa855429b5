"""Buffers that operations of the reference engine keep between calls, so that nothing is allocated twice."""

from __future__ import annotations

import math
from typing import Any


class Scratch:
    """One growing buffer for one purpose of one operation; its contents are whatever the last use left."""

    def __init__(self, xp: Any) -> None:
        self._xp = xp
        self._flat: Any = None

    def take(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Return the buffer's first values as an array of `shape`."""
        count = math.prod(shape)
        if self._flat is None or self._flat.size < count or self._flat.dtype != dtype:
            self._flat = self._xp.empty(count, dtype)
        return self._flat[:count].reshape(shape)
