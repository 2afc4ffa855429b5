"""Cut arrays into batches of a net's size and put what comes out of the batches together again.

For Net.forward_all and Net.forward_backward_all. Follows caffe's pycaffe.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtrain.core.errors import UserError

Arrays = dict[str, NDArray[Any]]


def split_batches(arrays: Mapping[str, ArrayLike], batch_size: int) -> Iterator[Arrays]:
    """Yield the arrays batch by batch along axis 0; the last is filled up with zeros. None for no arrays.

    Raises UserError unless all have as many items.
    """
    given = {name: np.asarray(values) for name, values in arrays.items()}
    num_items = count_items(given)
    for first in range(0, num_items, batch_size):
        rows = {name: values[first : first + batch_size] for name, values in given.items()}
        num_missing = batch_size - min(batch_size, num_items - first)
        yield {name: _padded(values, num_missing) for name, values in rows.items()} if num_missing else rows


def count_items(arrays: Mapping[str, ArrayLike]) -> int:
    """Return how many items the arrays have along axis 0. Raises UserError unless they agree."""
    shapes = {name: np.shape(values) for name, values in arrays.items()}
    if len({shape[:1] for shape in shapes.values()}) > 1 or () in shapes.values():
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise UserError(f"all arrays must have as many items along their first axis, got {listed}")
    return next(iter(shapes.values()))[0] if shapes else 0


def _padded(values: NDArray[Any], num_missing: int) -> NDArray[Any]:
    return np.concatenate([values, np.zeros((num_missing, *values.shape[1:]), values.dtype)])


class BatchResults:
    """What the batches gave, by blob name; the values are copied."""

    def __init__(self) -> None:
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Enter the results of one batch."""
        for name, values in arrays.items():
            self._parts.setdefault(name, []).append(values.copy())

    def joined(self, batch_size: int, num_items: int) -> Arrays:
        """Return each blob's values of all batches along axis 0.

        Of a blob with an item for each of the batch the first num_items, which leaves out the padding; of others
        (a loss, say, one number a batch) all.
        """
        result = {}
        for name, parts in self._parts.items():
            by_item = parts[0].shape[:1] == (batch_size,)
            values = np.concatenate([np.atleast_1d(part) for part in parts])
            result[name] = values[:num_items] if by_item else values
        return result
