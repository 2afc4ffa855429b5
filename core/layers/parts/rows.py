"""Rows of an array picked by number: indices that come as a blob's values, and the gradient of picking."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import RowSumsOperation, RowSumsSpec
from dtrain.core.errors import ItemError, UserError
from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.shapes import name_bottom


def read_indices(
    layer: Layer, bottom: Blob, position: int, num_rows: int, why: str, are_items: bool = False
) -> NDArray[np.int64]:
    """Return the values of a bottom, in row-major order, as indices of rows.

    position: which of the layer's bottoms it is. why: where `num_rows` comes from, in words. are_items: whether the
    bottom's axis 0 is the batch, so that a mistake can be put down to an item of it.
    Raises UserError for a value that is not a whole number from 0 to num_rows − 1.
    """
    values = bottom.read_data().reshape(-1)
    is_wrong = ~((values >= 0) & (values < num_rows) & (values == np.floor(values)))
    if is_wrong.any():
        place = int(np.argmax(is_wrong))
        problem = (
            f"{name_bottom(layer, position)} must hold whole numbers from 0 to {num_rows - 1} ({why}), got "
            f"{values[place]:g}"
        )
        if are_items and bottom.shape:
            raise ItemError(problem, item=place * bottom.shape[0] // values.size)
        raise UserError(f"{problem} at place {place}")
    indices: NDArray[np.int64] = values.astype(np.int64)
    return indices


class Picks:
    """Rows of arrays that a layer picks by number: the values of bottom `position`, read anew in each forward pass.

    why, are_items: as for read_indices.
    """

    def __init__(self, layer: Layer, bottom: Blob, position: int, why: str, are_items: bool = False) -> None:
        self._layer = layer
        self._about = position, why, are_items
        self._sums: RowSumsOperation = layer.engine.create(RowSumsSpec((bottom.count,)))
        self._is_wrong: Any = None  # where there is no such row, if nobody has looked

    def read(self, bottom: Blob, num_rows: int) -> None:
        """Take in the indices. Raises UserError as read_indices does, if the engine looks at values."""
        position, why, are_items = self._about
        engine = self._layer.engine
        if not engine.memory.has_addresses:
            self.indices: Any = read_indices(self._layer, bottom, position, num_rows, why, are_items)
            return
        if engine.looks_at_values():
            read_indices(self._layer, bottom, position, num_rows, why, are_items)
        xp, values = engine.xp, bottom.read_data(engine.memory).reshape(-1)
        self._is_wrong = ~((values >= 0) & (values < num_rows) & (values == xp.floor(values)))
        self.indices = xp.where(self._is_wrong, 0, values).astype(np.int64)

    def take(self, values: Any, target: Any) -> None:
        """Overwrite `target` (M, …) by the rows of `values`; NaN where there is no such row."""
        target[...] = values[self.indices]
        if self._is_wrong is not None:
            is_wrong = self._is_wrong.reshape(-1, *[1] * (target.ndim - 1))
            self._layer.xp.copyto(target, target.dtype.type(np.nan), where=is_wrong)

    def add(self, target: Any, rows: Any) -> None:
        """Add rows (M, …) to those of `target` that they were picked from."""
        self._sums.add(target, self.indices, rows)
