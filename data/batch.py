"""A batch: what a reader fills, a loader hands over and a data layer copies into its tops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]


class Batch:
    """N records, ready for the net.

    arrays: float32, one for each top of the layer, (N, …). epochs, indices: int64 (N,), which records they are.
    """

    __slots__ = ("arrays", "epochs", "indices")

    def __init__(self, batch_size: int, shapes: Sequence[Shape]) -> None:
        """Allocate arrays for `batch_size` records; shapes: of one record in each array, () for a number."""
        self.arrays = [np.empty((batch_size, *shape), np.float32) for shape in shapes]
        self.epochs: NDArray[np.int64] = np.empty(batch_size, np.int64)
        self.indices: NDArray[np.int64] = np.empty(batch_size, np.int64)

    @property
    def data(self) -> NDArray[np.float32]:
        """The first array: images (N, C, h, w)."""
        return self.arrays[0]

    @property
    def labels(self) -> NDArray[np.float32]:
        """The second array: labels (N,)."""
        return self.arrays[1]

    def fit(self, which: int, shape: Shape) -> NDArray[np.float32]:
        """Return array `which` for records of `shape`, made anew if it was for others."""
        if self.arrays[which].shape[1:] != shape:
            self.arrays[which] = np.empty((len(self.indices), *shape), np.float32)
        return self.arrays[which]
