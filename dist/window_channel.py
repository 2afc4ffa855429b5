"""One row of exchanges among the ranks of a host through common memory.

In the flow prototxt → graph → net → solver → communicator → snapshot window.py sums gradients with it, and
hierarchical.py those of one host.

Each rank counts the meetings that it has come to, and goes on when all have come to as many. Between two
meetings a rank writes only what no other reads or writes:

- what lies at the same place of an arena on all ranks is summed where it is: each rank sums its slice;
- a few bytes that lie elsewhere are copied to a slot; when all have come, each rank sums them all. There are two
  slots, used in turn: who comes to the next meeting has finished reading the slot of this one. It is the same with
  the words in which ranks say where their arrays lie;
- anything else is copied to buffers in pieces. Of three buffers in turn, one is filled, one is summed, and from
  one the sums are copied back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from dtrain.dist.communicator import Array
from dtrain.dist.sums import slice_bounds, slice_start, sum_in_order
from dtrain.dist.waiting import Steps
from dtrain.dist.window_memory import NOWHERE, WindowMemory
from dtrain.dist.window_plan import Plan, plan_of

SLOT_BYTES = 2**15  # for more than this a second meeting costs less than summing all of it on each rank
BUFFER_BYTES = 2**20  # stays in the cache on its way
LINE_BYTES = 64  # what one rank writes and others look at has a cache line of its own
PART_BYTES = LINE_BYTES + 2 * SLOT_BYTES + 3 * BUFFER_BYTES

# The words of a rank's line: its number of meetings; where the array lies that it brings to the next, two in turn.
MEETINGS, PLACES = 0, (1, 2)

# Ranks that work at the same speed come to a meeting within these looks, some microseconds; a core that is offered to
# others sooner may be gone for a millisecond. Where ranks outnumber the cores, it is offered after each look: one of
# them may need it.
NUM_LOOKS = 100


class WindowChannel:
    """The exchanges of one row; all ranks of the host make the same ones, in the same order, each to its end.

    Arguments:
        rank: this one's number among the ranks of the host.
        parts: for each rank its part of common memory, PART_BYTES of zeros.
        arenas: memories in which arrays may lie, alike on all ranks; the list may grow.
        fence: keeps what was read and written before it from being seen after what is done behind it; None where
            the machine does so.
    """

    def __init__(
        self,
        rank: int,
        parts: Sequence[Array],
        arenas: Sequence[WindowMemory],
        fence: Callable[[], object] | None,
    ) -> None:
        self._rank = rank
        self._num_ranks = len(parts)
        lines = [part[:LINE_BYTES].data.cast("q") for part in parts]
        self._own_line, self._other_lines = lines[rank], lines[:rank] + lines[rank + 1 :]
        self._slots = [[_cut(part, LINE_BYTES, SLOT_BYTES, k) for part in parts] for k in range(2)]
        first = LINE_BYTES + 2 * SLOT_BYTES
        self._buffers = [[_cut(part, first, BUFFER_BYTES, k) for part in parts] for k in range(3)]
        self._arenas = arenas
        self._fence = fence
        self._offers_core = self._num_ranks > (os.cpu_count() or 1)
        self._num_meetings = self._num_pieces = 0
        self._place_word = PLACES[0]

    def all_reduce(self, array: Array, elsewhere: Callable[[Array], Steps] | None = None) -> Steps:
        """Sum `array` over the ranks of the host, in their order, in place.

        elsewhere: what to do on all ranks with an array that lies in no arena and is too large for a slot, instead
            of letting it pass through buffers.
        """
        return self._sum(array, True, True, elsewhere or self.all_reduce_by_pieces)

    def all_reduce_by_pieces(self, array: Array) -> Steps:
        """Do the same through buffers, wherever `array` lies."""
        return self._sum_pieces(array, is_wanted=True)

    def reduce(self, array: Array) -> Steps:
        """Do the same on rank 0 of the host; on other ranks `array` may be overwritten by anything."""
        is_wanted = self._rank == 0
        return self._sum(array, is_wanted, False, lambda array: self._sum_pieces(array, is_wanted))

    def _sum(self, array: Array, is_wanted: bool, to_all: bool, elsewhere: Callable[[Array], Steps]) -> Steps:
        if self._num_ranks == 1 or not array.size:
            return
        plan = self._bring(array)
        slots = self._fill_slot(array) if plan is None and array.nbytes <= SLOT_BYTES else None
        yield from self._meet()
        if not self._have_brought_the_same(plan):
            yield from elsewhere(array)
        elif plan is not None:
            plan.sum_slice(to_all)
            yield from self._meet()
        elif slots is None:
            yield from elsewhere(array)
        elif is_wanted:
            sum_in_order(slots, array.reshape(-1))

    def broadcast(self, array: Array, root: int) -> Steps:
        """Overwrite `array` with what it holds on rank `root` of the host."""
        flat = array.reshape(-1)
        if self._num_ranks == 1 or not flat.size:
            return
        if flat.nbytes <= SLOT_BYTES:
            yield from self._copy(flat, self._next_slots(flat)[root], root)
            return
        plan = self._bring(flat)
        yield from self._meet()
        if plan is None or not self._have_brought_the_same(plan):
            for piece in _pieces(flat):
                yield from self._copy(piece, self._next_buffers(piece)[root], root)
        else:
            if self._rank != root:
                flat[...] = plan.rows[root]
            yield from self._meet()

    def _meet(self) -> Iterable[bool]:
        """Come to the next meeting; return what ends when all have come."""
        count = self._num_meetings = self._num_meetings + 1
        if self._fence is not None:
            self._fence()
        self._own_line[MEETINGS] = count
        looks_left = NUM_LOOKS
        for line in self._other_lines:
            while line[MEETINGS] < count:
                if not looks_left:
                    return self._wait_for_others(count)
                looks_left -= 1
                if self._offers_core:
                    os.sched_yield()
        return () if self._fence is None else self._wait_for_others(count)

    def _wait_for_others(self, count: int) -> Steps:
        moved = True
        for line in self._other_lines:
            while line[MEETINGS] < count:
                yield moved
                moved = False
        if self._fence is not None:
            self._fence()

    def _bring(self, array: Array) -> Plan | None:
        """Let the others see at the next meeting where `array` lies; return its plan if that is in an arena."""
        plan = plan_of(array, self._arenas, self._rank)
        self._place_word = PLACES[self._num_meetings % 2]
        self._own_line[self._place_word] = NOWHERE if plan is None else plan.place
        return plan

    def _have_brought_the_same(self, plan: Plan | None) -> bool:
        """Return, behind that meeting and on all ranks alike, whether all have brought what lies at one place."""
        place, is_same = NOWHERE if plan is None else plan.place, True
        for line in self._other_lines:
            is_same = is_same and line[self._place_word] == place
        return is_same

    def _sum_pieces(self, array: Array, is_wanted: bool) -> Steps:
        """Sum piece by piece; between two meetings one is filled in, one summed, and one's sums are taken out."""
        pieces = _pieces(array.reshape(-1))
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

    def _fill_slot(self, array: Array) -> list[Array]:
        """Copy `array` to this rank's next slot; return the slots of all ranks."""
        flat = array.reshape(-1)
        slots = self._next_slots(flat)
        slots[self._rank][...] = flat
        return slots

    def _next_slots(self, flat: Array) -> list[Array]:
        """Return the slots of all ranks, in the form of `flat`."""
        return [slot[: flat.nbytes].view(flat.dtype) for slot in self._slots[self._num_meetings % 2]]

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
