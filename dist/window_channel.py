"""One row of exchanges among the ranks of a host through common memory.

In the flow prototxt → graph → net → solver → communicator → snapshot window.py sums gradients with it, and
hierarchical.py those of one host.

Each rank counts the meetings that it has come to, and goes on when all have come to as many. Between two
meetings a rank writes only what no other reads or writes:

- what lies at the same place of an arena on all ranks is summed where it is: each rank sums its slice;
- a few bytes are copied to a slot; when all have come, each rank sums them all. There are two slots, used in
  turn: who comes to the next meeting has finished reading the slot of this one;
- anything else is copied to buffers in pieces. Of three buffers in turn, one is filled, one is summed, and from
  one the sums are copied back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from dtrain.dist.communicator import Array
from dtrain.dist.sums import slice_bounds, slice_start, sum_in_order
from dtrain.dist.waiting import Steps
from dtrain.dist.window_memory import NOWHERE, WindowMemory

SLOT_BYTES = 2**15  # for more than this a second meeting costs less than summing all of it on each rank
BLOCK_BYTES = 2**18  # of each addend: the sum stays in the cache until all have it
BUFFER_BYTES = 2**20  # stays in the cache on its way
LINE_BYTES = 64  # what one rank writes and others look at has a cache line of its own
PART_BYTES = LINE_BYTES + 2 * SLOT_BYTES + 3 * BUFFER_BYTES

# The words of a rank's line: its number of meetings; where the array that it brings lies.
MEETINGS, PLACE = 0, 1
ARENA_STEP = 2**48  # more than an arena can hold


class WindowChannel:
    """The exchanges of one row; all ranks of the host make the same ones, in the same order, each to its end.

    Arguments:
        rank: this one's number among the ranks of the host.
        parts: for each rank its part of common memory, PART_BYTES of zeros.
        arenas: memories in which arrays may lie, alike on all ranks; the list may grow.
        fence: keeps what was read and written before it from being seen after what is done behind it.
    """

    def __init__(
        self,
        rank: int,
        parts: Sequence[Array],
        arenas: Sequence[WindowMemory],
        fence: Callable[[], object],
    ) -> None:
        self._rank = rank
        self._num_ranks = len(parts)
        self._lines = [part[:LINE_BYTES].data.cast("q") for part in parts]
        self._slots = [[_cut(part, LINE_BYTES, SLOT_BYTES, k) for part in parts] for k in range(2)]
        first = LINE_BYTES + 2 * SLOT_BYTES
        self._buffers = [[_cut(part, first, BUFFER_BYTES, k) for part in parts] for k in range(3)]
        self._arenas = arenas
        self._fence = fence
        self._num_meetings = self._num_slots = self._num_pieces = 0

    def all_reduce(self, array: Array) -> Steps:
        """Sum `array` over the ranks of the host, in their order, in place."""
        flat = array.reshape(-1)
        if not (yield from self.all_reduce_quickly(flat)):
            yield from self._sum_pieces(flat, is_wanted=True)

    def all_reduce_quickly(self, array: Array) -> Generator[bool, None, bool]:
        """Do the same if it takes no passing through buffers; return whether it is done, on all ranks alike."""
        return self._sum_quickly(array.reshape(-1), is_wanted=True, to_all=True)

    def reduce(self, array: Array) -> Steps:
        """Do the same on rank 0 of the host; on other ranks `array` may be overwritten by anything."""
        flat, is_wanted = array.reshape(-1), self._rank == 0
        if not (yield from self._sum_quickly(flat, is_wanted, to_all=False)):
            yield from self._sum_pieces(flat, is_wanted)

    def _sum_quickly(self, flat: Array, is_wanted: bool, to_all: bool) -> Generator[bool, None, bool]:
        if self._num_ranks == 1 or not flat.size:
            return True
        if flat.nbytes <= SLOT_BYTES:
            slots = self._next_slots(flat)
            slots[self._rank][...] = flat
            yield from self._meet()
            if is_wanted:
                sum_in_order(slots, flat)
            return True
        place = yield from self._common_place(flat)
        if place is None:
            return False
        self._sum_slice_in_place(*place, flat, to_all)
        yield from self._meet()
        return True

    def broadcast(self, array: Array, root: int) -> Steps:
        """Overwrite `array` with what it holds on rank `root` of the host."""
        flat = array.reshape(-1)
        if self._num_ranks == 1 or not flat.size:
            return
        if flat.nbytes <= SLOT_BYTES:
            yield from self._copy(flat, self._next_slots(flat)[root], root)
            return
        place = yield from self._common_place(flat)
        if place is None:
            for piece in _pieces(flat):
                yield from self._copy(piece, self._next_buffers(piece)[root], root)
        else:
            if self._rank != root:
                arena, start = place
                flat[...] = arena.part(root, start, flat.size, flat.dtype)
            yield from self._meet()

    def _meet(self) -> Steps:
        """Come to the next meeting; end when all have come."""
        count = self._num_meetings = self._num_meetings + 1
        self._fence()
        self._lines[self._rank][MEETINGS] = count
        moved = True
        for line in self._lines:
            while line[MEETINGS] < count:
                yield moved
                moved = False
        self._fence()

    def _common_place(self, flat: Array) -> Generator[bool, None, tuple[WindowMemory, int] | None]:
        """Return the arena and the byte of a part of it where `flat` lies on all ranks, None if there is no such."""
        own = self._lines[self._rank][PLACE] = self._place_of(flat)
        yield from self._meet()
        if own == NOWHERE:
            return None
        for line in self._lines:
            if line[PLACE] != own:
                return None
        number, start = divmod(own, ARENA_STEP)
        return self._arenas[number], start

    def _place_of(self, flat: Array) -> int:
        for number, arena in enumerate(self._arenas):
            start = arena.start_of(flat)
            if start != NOWHERE:
                return number * ARENA_STEP + start
        return NOWHERE

    def _sum_slice_in_place(self, arena: WindowMemory, start: int, flat: Array, to_all: bool) -> None:
        """Sum this rank's slice of what lies at byte `start` like `flat` on the first rank; copy it to the others."""
        begin, end = self._own_slice(flat)
        step = BLOCK_BYTES // flat.itemsize
        for first in range(begin, end, step):
            at, size = start + first * flat.itemsize, min(step, end - first)
            parts = [arena.part(rank, at, size, flat.dtype) for rank in range(self._num_ranks)]
            sum_in_order(parts, parts[0])
            for part in parts[1:] if to_all else ():
                part[...] = parts[0]

    def _sum_pieces(self, flat: Array, is_wanted: bool) -> Steps:
        """Sum piece by piece; between two meetings one is filled in, one summed, and one's sums are taken out."""
        pieces = _pieces(flat)
        summed, coming = None, self._fill(pieces[0])
        yield from self._meet()
        for k, piece in enumerate(pieces):
            if summed and is_wanted:
                self._take(pieces[k - 1], summed)
            summed = coming
            self._sum_slice(piece, summed)
            if k + 1 < len(pieces):
                coming = self._fill(pieces[k + 1])
            yield from self._meet()
        if summed and is_wanted:
            self._take(pieces[-1], summed)

    def _fill(self, piece: Array) -> list[Array]:
        """Copy `piece` to this rank's next buffer; return the buffers of all ranks."""
        buffers = self._next_buffers(piece)
        buffers[self._rank][...] = piece
        return buffers

    def _sum_slice(self, piece: Array, buffers: Sequence[Array]) -> None:
        start, end = self._own_slice(piece)
        sum_in_order([buffer[start:end] for buffer in buffers], piece[start:end])
        buffers[self._rank][start:end] = piece[start:end]

    def _take(self, piece: Array, buffers: Sequence[Array]) -> None:
        """Copy the sums of the other ranks' slices from where these ranks have left them."""
        bounds = slice_bounds(piece.size, self._num_ranks)
        for rank, buffer in enumerate(buffers):
            if rank != self._rank:
                start, end = bounds[rank : rank + 2]
                piece[start:end] = buffer[start:end]

    def _copy(self, flat: Array, shared: Array, root: int) -> Steps:
        """Copy `flat` from rank `root` to the others by way of `shared`."""
        if self._rank == root:
            shared[...] = flat
        yield from self._meet()
        if self._rank != root:
            flat[...] = shared

    def _next_slots(self, flat: Array) -> list[Array]:
        """Return the slots of all ranks, in the form of `flat`."""
        self._num_slots += 1
        return [slot[: flat.nbytes].view(flat.dtype) for slot in self._slots[self._num_slots % 2]]

    def _next_buffers(self, piece: Array) -> list[Array]:
        """Return the buffers of all ranks, in the form of `piece`."""
        self._num_pieces += 1
        return [buffer[: piece.nbytes].view(piece.dtype) for buffer in self._buffers[self._num_pieces % 3]]

    def _own_slice(self, flat: Array) -> tuple[int, int]:
        size, num_ranks, rank = flat.size, self._num_ranks, self._rank
        return slice_start(size, num_ranks, rank), slice_start(size, num_ranks, rank + 1)


def _cut(part: Array, first: int, size: int, number: int) -> Array:
    return part[first + number * size :][:size]


def _pieces(flat: Array) -> list[Array]:
    step = BUFFER_BYTES // flat.itemsize
    return [flat[start : start + step] for start in range(0, flat.size, step)]
