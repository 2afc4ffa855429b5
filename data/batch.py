"""A batch: what a reader fills, a loader hands over and a data layer copies into its tops."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

Shape = tuple[int, ...]
Allocate = Callable[[int], NDArray[np.uint8]]

_ALIGNMENT_BYTES = 256


def allocate_plain(num_bytes: int) -> NDArray[np.uint8]:
    """Return so many bytes of plain memory."""
    return np.empty(num_bytes, np.uint8)


class Place(NamedTuple):
    """Where an array lies in a block of bytes."""

    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    def of(self, block: Any) -> Any:
        """Return the array in `block`, uint8, of numpy's or of what has its methods."""
        num_bytes = math.prod(self.shape) * self.dtype.itemsize
        return block[self.offset : self.offset + num_bytes].view(self.dtype).reshape(self.shape)


class Batch:
    """N records, ready for the net; or all but their images, which are then as they are stored.

    arrays: one for each top of the layer, (N, …), float32 but for images as stored: uint8 (N, C, H, W), or
    (N, H, W, C) if channels_last. windows: what is to be cut out of those, int32 (N, 3) as Transformer.windows says;
    outside of the windows they hold whatever was there. None: arrays[0] is ready, too.
    epochs, indices: int64 (N,), which records they are.
    block: the bytes in which arrays and windows lie, together for who copies them; places: where, windows being last.
    """

    __slots__ = ("_allocate", "arrays", "block", "channels_last", "epochs", "indices", "places", "windows")

    def __init__(self, batch_size: int, shapes: Sequence[Shape], allocate: Allocate = allocate_plain) -> None:
        """Allocate arrays for `batch_size` records; shapes: of one record in each array, () for a number.

        allocate: takes a number of bytes and gives the memory that others will read.
        """
        self._allocate = allocate
        self.epochs: NDArray[np.int64] = np.empty(batch_size, np.int64)
        self.indices: NDArray[np.int64] = np.empty(batch_size, np.int64)
        self.arrays: list[NDArray[Any]] = []
        self.windows: NDArray[np.int32] | None = None
        self.channels_last = False
        self._lay_out([((batch_size, *shape), np.dtype(np.float32)) for shape in shapes])

    @property
    def data(self) -> NDArray[Any]:
        """The first array: images (N, C, h, w)."""
        return self.arrays[0]

    @property
    def labels(self) -> NDArray[np.float32]:
        """The second array: labels (N,)."""
        return self.arrays[1]

    def fit(self, which: int, shape: Shape) -> NDArray[np.float32]:
        """Return array `which` for float32 records of `shape`; if it was for others, all are made anew."""
        if which == 0:
            self.channels_last = False
        return self._fit(which, shape, np.float32, has_windows=which != 0 and self.windows is not None)

    def fit_stored(
        self, shape: Shape, windows: NDArray[np.int32], channels_last: bool = False
    ) -> NDArray[np.uint8]:
        """Return where images of `shape` (C, H, W) go as they are stored, uint8 (N, C, H, W), of which `windows` will
        be cut out; channels_last: in memory channels are next to each other.
        """
        self.channels_last = channels_last
        stored = (*shape[1:], shape[0]) if channels_last else shape
        images = self._fit(0, stored, np.uint8, has_windows=True)
        assert self.windows is not None
        self.windows[...] = windows
        return images.transpose(0, 3, 1, 2) if channels_last else images

    def _fit(self, which: int, shape: Shape, dtype: DTypeLike, has_windows: bool) -> NDArray[Any]:
        array = self.arrays[which]
        if array.shape[1:] != shape or array.dtype != dtype or has_windows != (self.windows is not None):
            kinds = [(array.shape, array.dtype) for array in self.arrays]
            kinds[which] = ((len(self.indices), *shape), np.dtype(dtype))
            self._lay_out(kinds, has_windows)
        return self.arrays[which]

    def _lay_out(self, kinds: Sequence[tuple[Shape, np.dtype[Any]]], has_windows: bool = False) -> None:
        """Make a block for arrays of these shapes and types; those that stay what they are keep their values."""
        self.places, num_bytes = lay_out(kinds, len(self.indices) if has_windows else 0)
        self.block = self._allocate(num_bytes)
        arrays = [place.of(self.block) for place in self.places]
        self.windows = arrays.pop() if has_windows else None
        for old, new in zip(self.arrays, arrays, strict=False):
            if (old.shape, old.dtype) == (new.shape, new.dtype):
                new[...] = old
        self.arrays[:] = arrays


def lay_out(
    kinds: Sequence[tuple[Shape, np.dtype[Any]]], num_windows: int = 0
) -> tuple[tuple[Place, ...], int]:
    """Return where arrays of these shapes and types, and windows if there are any, lie in a block, and its bytes."""
    windows = [((num_windows, 3), np.dtype(np.int32))] if num_windows else []
    places, end = [], 0
    for shape, dtype in (*kinds, *windows):
        places.append(Place(end, shape, dtype))
        num_bytes = math.prod(shape) * dtype.itemsize
        end += -(-num_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    return tuple(places), end
