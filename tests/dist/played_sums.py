"""Sums over ranks that are threads, which nobody waits in: MpiSums for want of MPI."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.pipeline import Piece
from dtrain.dist.sums import sum_in_order
from dtrain.dist.waiting import Steps, nothing, until


class Between:
    """What lies between the hosts of one job.

    sent: for each rank the sizes in bytes of what it has given to be summed. num_open: how many PlayedSums are not
    closed. num_plain: how many pieces were summed in any order.
    """

    def __init__(self) -> None:
        self.sent: defaultdict[int, list[int]] = defaultdict(list)
        self.num_open = 0
        self.num_plain = 0
        self.parts: defaultdict[tuple[Any, ...], dict[int, Array]] = defaultdict(dict)
        self._num_made: defaultdict[int, int] = defaultdict(int)

    def make(self, host: Communicator, part: int | None) -> PlayedSums | None:
        """Return what sums over the ranks that give the same part. Collective."""
        others = host.all_gather_bytes(b"" if part is None else b"%d" % part)
        members = [rank for rank, other in enumerate(others) if part is not None and other == b"%d" % part]
        self._num_made[host.rank] += 1
        if not members:
            return None
        self.num_open += 1
        return PlayedSums(self, host.rank, members, self._num_made[host.rank])


class PlayedSums:
    """Sums over `members`, of which `rank` is one; the `number`th that were made."""

    def __init__(self, between: Between, rank: int, members: list[int], number: int) -> None:
        self._between, self._rank, self._members, self._number = between, rank, members, number
        self._num_pieces = 0

    def plain(self, chunk: Array) -> Piece:
        self._between.num_plain += 1
        return self.in_order(chunk, chunk)

    def in_order(self, values: Array, result: Array) -> Piece:
        return self._sum(values, result), nothing()

    def move_on(self) -> None:
        assert self._between.num_open > 0

    def close(self) -> None:
        self._between.num_open -= 1

    def _sum(self, values: Array, result: Array) -> Steps:
        form = values.size, values.dtype, result.dtype
        parts = self._between.parts[(self._number, *self._members, self._num_pieces, *form)]
        self._num_pieces += 1
        self._between.sent[self._rank].append(values.nbytes)
        parts[self._rank] = values.copy()
        yield from until(lambda: len(parts) == len(self._members))
        sum_in_order([parts[rank] for rank in self._members], result)
