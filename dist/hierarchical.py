"""Ranks on several hosts that sum inside each host first, then between hosts, one rank for each.

In the flow prototxt → graph → net → solver → communicator → snapshot this is the communicator of a job on
several hosts: a gradient crosses the network once for each host, not once for each rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NoReturn, Protocol

import numpy as np

from dtrain.dist.communicator import HALVES, Array, Communicator
from dtrain.dist.errors import LaunchError
from dtrain.dist.mpi import CHUNKS_BETWEEN_HOSTS, MpiCommunicator
from dtrain.dist.mpi_sums import MOST_SENT_TO_ALL, MpiSums, chunks
from dtrain.dist.pipeline import Piece, Pipeline
from dtrain.dist.reduction import Reduction
from dtrain.dist.waiting import Steps, nothing, wait_until
from dtrain.dist.window import Window
from dtrain.dist.window_memory import WindowError

# While one chunk is between hosts, the next is summed inside each host, and the one before handed out.
CHUNK_BYTES = 2**20
CALLS, STARTED = range(2)  # the lanes


class Inside(Protocol):
    """What the ranks of one host do among themselves, in two lanes that don't meet. The first rank leads.

    In each lane the reductions are made in the same order on all ranks of the host, each to its end, and so are
    the broadcasts; between the two there is no order.
    """

    def reduce(self, lane: int, array: Array) -> Steps:
        """Overwrite `array` on the leader with the sum over the host, on others with anything."""
        ...

    def broadcast(self, lane: int, array: Array) -> Steps:
        """Overwrite `array` with the leader's."""
        ...

    def allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Return zeros (num_elements,) in the memory that is summed fastest. Collective."""
        ...

    def close(self) -> None:
        """Give everything back. Collective."""
        ...


class WindowInside:
    """The inside of a host through common memory. Making one is collective. Raises WindowError."""

    def __init__(self, mpi: ModuleType, comm: Any) -> None:
        self._window = Window(mpi, comm, num_channels=4)
        self.allocate = self._window.allocate
        self.close = self._window.close

    def reduce(self, lane: int, array: Array) -> Steps:
        """Overwrite `array` on the leader with the sum over the host, on others with anything."""
        return self._window.channels[2 * lane].reduce(array)

    def broadcast(self, lane: int, array: Array) -> Steps:
        """Overwrite `array` with the leader's."""
        return self._window.channels[2 * lane + 1].broadcast(array, 0)


class HierarchicalCommunicator(Communicator):
    """Sum inside hosts, then between them; do all else as `base` does. Making one is collective.

    Hosts may have different numbers of ranks. float16 and bfloat16 are summed inside a host in float32, and as
    float32 go to the leader that rounds the sum; rounded sums come back. With ordered_sums everything goes
    between ranks as in `base`: a host's sum would be an order of its own.

    Arguments:
        inside: makes what the ranks of one host use, of mpi4py's module and their communicator.

    Raises:
        LaunchError: the ranks of a host cannot have what `inside` needs.
    """

    name = "hierarchical"

    def __init__(
        self, base: MpiCommunicator, inside: Callable[[ModuleType, Any], Inside] = WindowInside
    ) -> None:
        super().__init__(base.topology)
        self._base = base
        self._inside_host = self._make_inside(inside)
        is_leader = self.topology.local_rank == 0
        leaders = base.comm.Split(0 if is_leader else base.mpi.UNDEFINED, self.rank)
        self._between = [MpiSums(base.mpi, leaders, base.naming) for _ in range(2)] if is_leader else []
        if is_leader:
            leaders.Free()
        self._pipelines = [Pipeline([1, CHUNKS_BETWEEN_HOSTS, CHUNKS_BETWEEN_HOSTS, 1]) for _ in range(2)]

    def abort(self, exit_code: int) -> NoReturn:
        self._base.abort(exit_code)

    def close(self) -> None:
        self._settle()
        self._inside_host.close()
        for sums in self._between:
            sums.close()
        self._base.close()

    def _make_inside(self, inside: Callable[[ModuleType, Any], Inside]) -> Inside:
        """Make the inside of each host; if one host fails, all ranks know."""
        made, problem = None, ""
        comm = self._base.comm.Split(self.topology.node_rank, self.rank)
        try:
            made = inside(self._base.mpi, comm)
        except WindowError as error:
            problem = f"{self.topology.host}: {error}"
        problems = sorted(set(filter(None, self._base.comm.allgather(problem))))
        if problems or made is None:
            raise LaunchError(
                f"communicator: hierarchical must have common memory, got: {'; '.join(problems)}; use mpi"
            )
        return made

    def _start_all_reduce(self, array: Array) -> Reduction:
        if self.ordered_sums:
            return self._base_in_order().start_all_reduce(array)
        self._base.settle()
        return self._pipelines[STARTED].start(self._pieces(STARTED, array))

    def _all_reduce(self, array: Array) -> None:
        if self.ordered_sums:
            self._base_in_order().all_reduce(array)
            return
        calls, started = self._pipelines
        calls.start(self._pieces(CALLS, array))
        wait_until(lambda: any([calls.move_on(), started.move_on()]), lambda: calls.is_empty)

    def _pieces(self, lane: int, array: Array) -> Iterator[Piece]:
        for chunk in chunks(array, CHUNK_BYTES):
            # What travels inside the host and to the leader who sums it up.
            wide = chunk.astype(np.float32) if chunk.dtype in HALVES else chunk
            yield [
                self._inside_host.reduce(lane, wide),
                *self._sum_between(lane, wide, chunk),
                self._inside_host.broadcast(lane, chunk),
            ]

    def _sum_between(self, lane: int, wide: Array, chunk: Array) -> Piece:
        if not self._between:
            return nothing(), nothing()
        sums = self._between[lane]
        if wide is chunk and self.topology.num_nodes > MOST_SENT_TO_ALL:
            return sums.plain(chunk)
        return sums.in_order(wide, chunk)

    def _settle(self) -> None:
        """Wait for the reductions under way, which would stand still in calls that block."""
        self._pipelines[STARTED].finish()

    def _base_in_order(self) -> MpiCommunicator:
        self._settle()
        self._base.ordered_sums = True
        return self._base

    def _allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        self._settle()
        return self._inside_host.allocate(num_elements, dtype)

    def _broadcast(self, array: Array, root: int) -> None:
        self._settle()
        self._base.broadcast(array, root)

    def _all_gather(self, array: Array) -> Array:
        self._settle()
        return self._base.all_gather(array)

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        self._settle()
        return self._base.all_gather_bytes(payload)

    def _barrier(self) -> None:
        self._settle()
        self._base.barrier()
