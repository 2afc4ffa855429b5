"""A pool of host memory, of which blobs whose lives don't overlap borrow the same bytes one after the other.

Beside tensor.py: a storage borrows when it is written and gives back when no layer reads it any more, which
net/lifetimes.py knows. Whatever of a net's values is alive at once lies close together at the pool's beginning.
"""

from __future__ import annotations

import bisect
import mmap
import sys
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.dist.memory import ALIGNMENT_BYTES

_RESERVED_BYTES = 1 << 32  # of addresses: memory is taken by what is written, page by page
_MOST_STEPS = 1 << 14  # that a pool remembers; more come of shapes that change all the time
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


class MemoryPool:
    """Lends pieces of host memory. Contents are whatever the last borrower left. Not for several threads at once.

    A piece is cut from the first gap that holds it, so that gaps stay few and what is in use stays low; neighbouring
    gaps grow together again. Who asks for the same bytes again, as a net does iteration by iteration, gets the same
    array object, so that whoever has worked with it before knows it. What is lent next and what is given back where
    the gaps are so and so is remembered: a second iteration looks up what the first one has worked out.
    """

    def __init__(self) -> None:
        self._extents: list[_Extent] = []
        self._states: dict[Hashable, _State] = {}  # by their gaps
        self._state = self._state_of([])
        self._num_steps = 0  # that are remembered
        self._lent: dict[int, _Loan] = {}  # by the piece's id
        self._put_off: dict[Callable[[], object], None] = {}  # each once, in order

    def __del__(self) -> None:
        self._forget()  # else the memory would wait for the garbage collector

    @property
    def peak_bytes(self) -> int:
        """How much memory the pool has touched so far: up to the end of the farthest piece."""
        return sum(extent.peak for extent in self._extents)

    @property
    def lent_bytes(self) -> int:
        """How much is lent now."""
        return sum(loan.size for loan in self._lent.values())

    def lend(self, num_bytes: int, dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """Return `num_bytes` bytes that start on a cache line and are nobody else's until they are given back.

        dtype: what they are seen as.
        """
        loan = self._state.loans.get((num_bytes, dtype))
        if loan is None:
            loan = self._make_loan(num_bytes, dtype)
        piece = loan.piece
        self._state = loan.state
        self._lent[id(piece)] = loan
        return piece

    def has_lent(self, array: NDArray[Any]) -> bool:
        """Return whether `array` is a piece of this pool's that was not given back yet."""
        return id(array) in self._lent

    def give_back(self, piece: NDArray[Any]) -> None:
        """Take back the array that `lend` returned; whoever still looks at it sees what others write."""
        loan = self._lent.pop(id(piece))
        state = self._state.returns.get(loan)
        if state is None:
            state = self._make_return(loan)
        self._state = state

    def put_off(self, call: Callable[[], object]) -> None:
        """Have `call` at the next `catch_up`: it gives back what those that compute now may still look at."""
        self._put_off[call] = None

    def catch_up(self) -> None:
        """Do what was put off."""
        while self._put_off:
            call, _ = self._put_off.popitem()
            call()

    def _make_loan(self, num_bytes: int, dtype: DTypeLike) -> _Loan:
        """Work out what is lent for a request in this state, and remember it."""
        self._count_step()
        size = whole_lines(num_bytes)
        all_gaps = [gaps.copy() for gaps in self._state.gaps]
        for extent, gaps in zip(self._extents, all_gaps, strict=True):  # noqa: B007 (the one that has room)
            start = gaps.cut(size)
            if start is not None:
                break
        else:
            extent = _Extent(size)
            self._extents.append(extent)
            all_gaps.append(Gaps(extent.array.size))
            start = all_gaps[-1].cut(size) or 0
        piece = extent.piece(start, num_bytes, dtype)
        loan = _Loan(piece, extent, start, size, self._state_of(all_gaps))
        self._state.loans[num_bytes, dtype] = loan
        return loan

    def _make_return(self, loan: _Loan) -> _State:
        """Work out where the gaps are once `loan` is given back in this state, and remember it."""
        self._count_step()
        all_gaps = [gaps.copy() for gaps in self._state.gaps]
        all_gaps[self._extents.index(loan.extent)].join(loan.start, loan.size)
        state = self._state.returns[loan] = self._state_of(all_gaps)
        return state

    def _state_of(self, all_gaps: list[Gaps]) -> _State:
        """Return the state with these gaps, the same one each time: so a cycle of requests is one of states."""
        key = tuple(gaps.places for gaps in all_gaps)
        found = self._states.get(key)
        if found is None:
            found = self._states[key] = _State(all_gaps)
        return found

    def _count_step(self) -> None:
        if self._num_steps >= _MOST_STEPS:
            self._forget()
        self._num_steps += 1

    def _forget(self) -> None:
        """Forget all that was remembered, arrays included; states know one another, and are emptied therefore."""
        for state in self._states.values():
            state.loans.clear()
            state.returns.clear()
        for extent in self._extents:
            extent.pieces.clear()
        self._states.clear()
        self._num_steps = 0


class _Loan:
    """A piece, and the state in which a pool is once it is lent."""

    __slots__ = ("extent", "piece", "size", "start", "state")

    def __init__(self, piece: NDArray[Any], extent: _Extent, start: int, size: int, state: _State) -> None:
        self.piece = piece
        self.extent = extent
        self.start = start
        self.size = size
        self.state = state


class _State:
    """Where a pool's gaps are, by extent, and what follows: by request what is lent, by loan what is left then."""

    __slots__ = ("gaps", "loans", "returns")

    def __init__(self, gaps: list[Gaps]) -> None:
        self.gaps = gaps
        self.loans: dict[tuple[int, DTypeLike], _Loan] = {}
        self.returns: dict[_Loan, _State] = {}


class Gaps:
    """The gaps in a run of `num_bytes` addresses: where they start, in order, and how long each is.

    peak: the end of the farthest piece so far. It is arithmetic only, for pools and for what is predicted of them.
    """

    def __init__(self, num_bytes: int) -> None:
        self.peak = 0
        self._starts, self._sizes = [0], [num_bytes]

    @property
    def places(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Where the gaps start, and how long they are."""
        return tuple(self._starts), tuple(self._sizes)

    def copy(self) -> Gaps:
        """Return the same gaps, for other pieces to be cut from."""
        other = Gaps(0)
        other.peak, other._starts, other._sizes = self.peak, self._starts.copy(), self._sizes.copy()
        return other

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
    """Reserved memory. peak: the end of the farthest piece so far."""

    def __init__(self, least_bytes: int) -> None:
        self.array = np.frombuffer(_reserve(least_bytes), np.uint8)
        self.peak = 0
        self.pieces: dict[tuple[int, int, DTypeLike], NDArray[Any]] = {}

    def piece(self, start: int, num_bytes: int, dtype: DTypeLike) -> NDArray[Any]:
        """Return these bytes as an array, the same one each time."""
        key = start, num_bytes, dtype
        piece = self.pieces.get(key)
        if piece is None:
            piece = self.pieces[key] = self.array[start : start + num_bytes].view(dtype)
            self.peak = max(self.peak, start + whole_lines(num_bytes))
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
