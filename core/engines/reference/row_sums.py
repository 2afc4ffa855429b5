"""The reference engine's sums of rows by number."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import RowSumsSpec


class RowSums:
    """Carry out a RowSumsSpec: sorted by index, rows are summed in runs."""

    def __init__(self, spec: RowSumsSpec, engine: Engine) -> None:
        pass

    def add(self, target: NDArray[Any], indices: NDArray[np.int64], rows: NDArray[Any]) -> None:
        """Add rows[i] to target[indices[i]] for all i."""
        if not rows.size:
            return
        order = np.argsort(indices, kind="stable")
        in_order = indices[order]
        starts = np.flatnonzero(np.diff(in_order, prepend=-1))
        target[in_order[starts]] += np.add.reduceat(rows[order], starts, axis=0)
