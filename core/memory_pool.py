"""A pool of host memory, of which blobs whose lives don't overlap borrow the same bytes one after the other.

Beside tensor.py: a storage borrows when it is written and gives back when no layer reads it any more, which
net/lifetimes.py knows. Whatever of a net's values is alive at once lies close together at the pool's beginning.
"""

from __future__ import annotations

import bisect
import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.dist.memory import ALIGNMENT_BYTES

_RESERVED_BYTES = 1 << 32  # of addresses: memory is taken by what is written, page by page
_MOST_PIECES = 1 << 14  # that an extent remembers; more come of shapes that change all the time
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class MemoryPool:
    """Lends pieces of host memory. Contents are whatever the last borrower left. Not for several threads at once.

    A piece is cut from the first gap that holds it, so that gaps stay few and what is in use stays low; neighbouring
    gaps grow together again. Who asks for the same bytes again, as a net does iteration by iteration, gets the same
    array object, so that whoever has worked with it before knows it.
    """

    def __init__(self) -> None:
        self._extents: list[_Extent] = []
        self._lent: dict[int, tuple[NDArray[Any], _Extent, int, int]] = {}  # by id; where

    @property
    def peak_bytes(self) -> int:
        """How much memory the pool has touched so far: up to the end of the farthest piece."""
        return sum(extent.gaps.peak for extent in self._extents)

    @property
    def lent_bytes(self) -> int:
        """How much is lent now."""
        return sum(size for *_, size in self._lent.values())

    def lend(self, num_bytes: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """Return `num_bytes` bytes that start on a cache line and are nobody else's until they are given back.

        dtype: what they are seen as.
        """
        size = whole_lines(num_bytes)
        for extent in self._extents:
            start = extent.gaps.cut(size)
            if start is not None:
                break
        else:
            extent = _Extent(size)
            self._extents.append(extent)
            start = extent.gaps.cut(size) or 0
        piece = extent.piece(start, num_bytes, dtype)
        self._lent[id(piece)] = piece, extent, start, size
        return piece

    def give_back(self, piece: NDArray[Any]) -> None:
        """Take back the array that `lend` returned; whoever still looks at it sees what others write."""
        _, extent, start, size = self._lent.pop(id(piece))
        extent.gaps.join(start, size)


class Gaps:
    """The gaps in a run of `num_bytes` addresses: where they start, in order, and how long each is.

    peak: the end of the farthest piece so far. It is arithmetic only, for pools and for what is predicted of them.
    """

    def __init__(self, num_bytes: int) -> None:
        self.peak = 0
        self._starts, self._sizes = [0], [num_bytes]

    def cut(self, size: int) -> int | None:
        """Take `size` bytes from the first gap that has them; return where they start, None if no gap has."""
        for k, room in enumerate(self._sizes):
            if room >= size:
                start = self._starts[k]
                self._starts[k] += size
                self._sizes[k] -= size
                if not self._sizes[k]:
                    del self._starts[k], self._sizes[k]
                self.peak = max(self.peak, start + size)
                return start
        return None

    def join(self, start: int, size: int) -> None:
        """Make a gap of `size` bytes, one with its neighbours."""
        k = bisect.bisect(self._starts, start)
        if k < len(self._starts) and start + size == self._starts[k]:
            size += self._sizes[k]
            del self._starts[k], self._sizes[k]
        if k and self._starts[k - 1] + self._sizes[k - 1] == start:
            self._sizes[k - 1] += size
        else:
            self._starts.insert(k, start)
            self._sizes.insert(k, size)


class _Extent:
    """Reserved memory and its gaps."""

    def __init__(self, least_bytes: int) -> None:
        self.array = np.frombuffer(_reserve(least_bytes), np.uint8)
        self.gaps = Gaps(self.array.size)
        self._pieces: dict[tuple[int, int, DTypeLike], NDArray[Any]] = {}

    def piece(self, start: int, num_bytes: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return these bytes as an array, the same one each time."""
        key = start, num_bytes, dtype
        piece = self._pieces.get(key)
        if piece is None:
            if len(self._pieces) >= _MOST_PIECES:
                self._pieces.clear()
            piece = self._pieces[key] = self.array[start : start + num_bytes].view(dtype)
        return piece


def whole_lines(num_bytes: int) -> int:
    """Return how much of a pool a piece of so many bytes takes: at least a cache line, and whole ones."""
    return max(1, -(-num_bytes // ALIGNMENT_BYTES)) * ALIGNMENT_BYTES


def _reserve(least_bytes: int) -> Any:
    """Return memory of at least so many bytes, of which none is taken before it is written; large pages if possible.

    Raises MemoryError if the system does not give as much.
    """
    for num_bytes in (max(_RESERVED_BYTES, least_bytes), least_bytes):
        try:
            memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE)
        except OSError:  # a limit on addresses: then as many as are needed, in several extents
            continue
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE)
        return memory
    raise MemoryError(f"can't reserve {least_bytes} bytes for the values of a net")
