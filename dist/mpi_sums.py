"""Sums of chunks by MPI calls that do not block: what moves on reductions between processes.

In the flow prototxt → graph → net → solver → communicator → snapshot mpi.py sums over all ranks with it,
hierarchical.py over one rank of each host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

import numpy as np

from dtrain.dist.communicator import Array
from dtrain.dist.pipeline import Piece
from dtrain.dist.sums import slice_bounds, sum_in_order
from dtrain.dist.waiting import Steps, nothing, until

Naming = Callable[[str], AbstractContextManager[None]]

# Between hosts in_order is faster than MPI's own sum: 244 MB over 2 Gbit/s took 1.05 s in chunks of 1 MB, four at a
# time, 2.3 to 2.6 s by Iallreduce in chunks of any size, and the link alone takes 0.98 s. Every process sends to
# every other, so beyond so many MPI's ways for many are taken.
MOST_SENT_TO_ALL = 16


class MpiSums:
    """Two stages of a Pipeline in which chunks are summed over the processes of an MPI communicator.

    Making one is collective, and so is what it returns, stage by stage in the same order on all ranks: each stage
    exchanges messages in a copy of the communicator.

    Arguments:
        mpi: mpi4py's module.
        naming: turns MPI's errors within a with block into a ClusterError that names the call.
    """

    def __init__(self, mpi: ModuleType, comm: Any, naming: Naming) -> None:
        self._mpi = mpi
        self._first, self._second = comm.Dup(), comm.Dup()
        self._naming = naming

    def close(self) -> None:
        """Free the communicator's copies. Collective."""
        self._first.Free()
        self._second.Free()

    def plain(self, chunk: Array) -> Piece:
        """Sum `chunk` in place, in MPI's order."""
        return self._all_reduce(chunk), nothing()

    def in_order(self, values: Array, result: Array) -> Piece:
        """Sum `values` in rank order into `result`, both (n,): each rank its slice, which all then gather.

        Values of two bytes are summed in float32 and rounded once; so are float32 values if `result` has two.
        """
        return self._scatter(values, result), self._gather(result)

    def move_on(self) -> None:
        """Let MPI bring others what they wait for, though all that was begun may be done here."""
        with self._naming("all_reduce"):
            self._first.Iprobe()

    def _all_reduce(self, chunk: Array) -> Steps:
        with self._naming("all_reduce"):
            yield from until(self._first.Iallreduce(self._mpi.IN_PLACE, chunk, op=self._mpi.SUM).Test)

    def _scatter(self, values: Array, result: Array) -> Steps:
        bounds = slice_bounds(values.size, self._first.Get_size())
        mine = slice(*bounds[self._first.Get_rank() :][:2])
        own = values[mine]
        parts = np.empty((self._first.Get_size(), own.size), values.dtype)
        sent = self._as_bytes(values, bounds)
        received = self._as_bytes(parts, [own.size * rank for rank in range(len(parts) + 1)])
        with self._naming("all_reduce"):
            yield from until(self._first.Ialltoallv(sent, received).Test)
        sum_in_order(list(parts), result[mine])

    def _gather(self, result: Array) -> Steps:
        gathered = self._as_bytes(result, slice_bounds(result.size, self._second.Get_size()))
        with self._naming("all_reduce"):
            yield from until(self._second.Iallgatherv(self._mpi.IN_PLACE, gathered).Test)

    def _as_bytes(self, array: Array, bounds: list[int]) -> list[Any]:
        """Describe the slices of `array` to MPI."""
        starts = np.array(bounds) * array.itemsize
        return [array.reshape(-1).view(np.uint8), np.diff(starts), starts[:-1], self._mpi.BYTE]


def chunks(array: Array, chunk_bytes: int) -> Iterator[Array]:
    """Yield the elements of `array` as views of at most `chunk_bytes` each."""
    flat = array.reshape(-1)
    step = chunk_bytes // flat.itemsize
    for start in range(0, flat.size, step):
        yield flat[start : start + step]
