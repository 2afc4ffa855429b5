"""Rows of an array picked by number: indices that come as a blob's values, and the gradient of picking."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
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


def add_rows(xp: Any, target: Any, indices: NDArray[np.int64], rows: Any) -> None:
    """Add rows[i] to target[indices[i]] for all i; rows of one index are summed up first.

    target: (V, …). indices: (M). rows: (M, …).
    """
    if not rows.size:
        return
    order = np.argsort(indices, kind="stable")
    in_order = indices[order]
    starts = np.flatnonzero(np.diff(in_order, prepend=-1))
    sums = xp.add.reduceat(rows[xp.asarray(order)], xp.asarray(starts), axis=0)
    target[xp.asarray(in_order[starts])] += sums
