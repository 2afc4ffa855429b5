"""How an array in common memory is summed where it lies: found out once for each array, and kept with the memory.

In the flow prototxt → graph → net → solver → communicator → snapshot window_channel.py asks for the plan of each
array that it is given. To find where an array lies and to make views of what other ranks have there takes as long as
to sum 64 KB.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.dist.communicator import Array
from dtrain.dist.sums import add_in_order, slice_start, without_a_word
from dtrain.dist.window_memory import NOWHERE, WindowMemory, address_of

BLOCK_BYTES = 2**18  # of each addend: the sum stays in the cache until all have it
ARENA_STEP = 2**48  # more than an arena can hold
MOST_PLANS = 1000  # of an arena: who sums ever new pieces of one must not fill the memory with plans


class Plan:
    """What it takes to sum an array that lies in an arena, alike on all ranks.

    Attributes:
        place: a number that says in which arena the array lies, and where.
        rows: what each rank has there, (num_ranks, num_elements).
    """

    def __init__(self, place: int, rows: Array, rank: int) -> None:
        self.place = place
        self.rows = rows
        num_ranks, size = rows.shape
        begin, end = slice_start(size, num_ranks, rank), slice_start(size, num_ranks, rank + 1)
        step = BLOCK_BYTES // rows.itemsize
        blocks = [rows[:, first : min(end, first + step)] for first in range(begin, end, step)]
        self._blocks = [(list(block), block[1:]) for block in blocks]

    @without_a_word
    def sum_slice(self, to_all: bool) -> None:
        """Sum this rank's slice in the order of the ranks, onto that of the first rank; copy it to the others."""
        for parts, others in self._blocks:
            total = parts[0]
            add_in_order(parts, total)
            if to_all:
                others[...] = total


def plan_of(array: Array, arenas: Sequence[WindowMemory], rank: int) -> Plan | None:
    """Return the plan of `array`, made or kept, None if it lies in none of the arenas.

    array: contiguous and writable, with elements. The plan refers neither to it nor to its arena, and goes with that.
    """
    address, num_bytes, dtype = key = address_of(array), array.nbytes, array.dtype
    for arena in arenas:
        plan: Plan | None = arena.kept.get(key)
        if plan is not None:
            return plan
    for number, arena in enumerate(arenas):
        start = arena.start_of(address, num_bytes)
        if start != NOWHERE:
            if len(arena.kept) >= MOST_PLANS:
                arena.kept.clear()
            plan = Plan(number * ARENA_STEP + start, arena.rows(start, array.size, dtype), rank)
            arena.kept[key] = plan
            return plan
    return None
