"""Rows added to those of a table by number, on a GPU: without a sort, in which cupy waits, in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.engines.cupy.kernels import C_TYPES, Kernel
from dtrain.core.engines.operations import RowSumsSpec


class RowSums:
    """Carry out a RowSumsSpec: rows of one index are linked, and walked along by the threads of the first."""

    def __init__(self, spec: RowSumsSpec, engine: Any) -> None:
        self.spec = spec
        self.xp = engine.xp
        self._next = self.xp.zeros(spec.x_shape, np.int32)
        self._is_first = self.xp.zeros(spec.x_shape, np.uint8)
        self._link = Kernel(self.xp, "link_rows", "row_sums", VALUE="float")
        self._kernels: dict[str, Kernel] = {}

    def add(self, target: Any, indices: Any, rows: Any) -> None:
        """Add rows[i] to target[indices[i]] for all i."""
        dtype = target.dtype.name
        if dtype not in self._kernels:
            self._kernels[dtype] = Kernel(self.xp, "add_rows", "row_sums", VALUE=C_TYPES[dtype])
        (num_rows,), links = self.spec.x_shape, (self._next, self._is_first)
        if rows.size:
            self._link.run(num_rows, indices, np.int32(num_rows), *links)
            values = self.xp.ascontiguousarray(rows)
            width = np.int64(rows.size // num_rows)
            self._kernels[dtype].run(rows.size, indices, *links, values, np.int64(rows.size), width, target)
