"""Ranks with a GPU each on several hosts: NCCL inside each host, MPI between hosts.

In the flow prototxt → graph → net → solver → communicator → snapshot this carries gradients where NCCL finds no way
from host to host, or is not to take it. nccl_staging.py brings device arrays to MPI and back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from dtrain.dist.communicator import HALVES, Array, Communicator
from dtrain.dist.cupy_library import mark
from dtrain.dist.mpi import CHUNKS_BETWEEN_HOSTS, MpiCommunicator
from dtrain.dist.mpi_sums import MOST_SENT_TO_ALL, MpiSums
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.nccl_lane import DeviceArray, Transfer
from dtrain.dist.nccl_slices import Slices
from dtrain.dist.nccl_staging import Staging
from dtrain.dist.pipeline import Piece, Pipeline
from dtrain.dist.reduction import DONE, Reduction

PIECE_BYTES = 2**20  # as between hosts without GPUs
_WIDTHS = [CHUNKS_BETWEEN_HOSTS] * 4  # down, two stages between hosts, up


class Sums(Protocol):
    """Sums over some of the ranks, as MpiSums makes them: two stages of a Pipeline."""

    def plain(self, chunk: Array) -> Piece:
        """Sum `chunk` in place, in any order."""
        ...

    def in_order(self, values: Array, result: Array) -> Piece:
        """Sum `values` in rank order into `result`, which may be in their place."""
        ...

    def move_on(self) -> None:
        """Let messages move on that others wait for."""
        ...

    def close(self) -> None:
        """Give everything back. Collective."""
        ...


def mpi_sums(host: Communicator, part: int | None) -> MpiSums | None:
    """Return what sums over the ranks that give the same `part`; for None, nothing. Collective."""
    world = MpiCommunicator(host.topology.host)
    comm = world.comm.Split(world.mpi.UNDEFINED if part is None else part, world.rank)
    sums = None
    if part is not None:
        sums = MpiSums(world.mpi, comm, world.naming)
        comm.Free()
    world.close()
    return sums


class NcclHierarchicalCommunicator(NcclCommunicator):
    """Sum device arrays inside hosts by NCCL, then between hosts by MPI; on one host do as NcclCommunicator.

    An array is cut into as many slices as the host with the fewest ranks has. NCCL sums slice k inside each host onto
    local rank k; the ranks that have slice k sum it between their hosts, on the host's memory, piece by piece; NCCL
    hands the sums out inside each host. So every GPU's own way to the host is used, where hosts have equally many.
    float16 and bfloat16 are float32 up to the sum over all ranks, and rounded once. With ordered_sums, every rank's
    whole array goes between all ranks: a host's sum would be an order of its own. broadcast and all_gather, which
    no iteration makes, are those of `host`, with copies before and after.

    The host moves sums on when they are tested or waited for, so nothing of it can be part of a CUDA graph. NCCL
    wants its calls in the same order on all ranks of a host, and when a sum is back is another time on each: sums
    are handed out from the first wait on, and before the next call that blocks. So between two starts all ranks of a
    host wait or none does, and where a host has several, `test` says no until this rank waits.

    Arguments:
        between: makes what sums between hosts, of `host` and a number that is the same on those that sum together.

    The rest is as for NcclCommunicator.
    """

    name = "nccl-hierarchical"
    captures = False

    def __init__(
        self,
        host: Communicator,
        device: int | None = None,
        between: Callable[[Communicator, int | None], Sums | None] = mpi_sums,
    ) -> None:
        self._crossings: deque[_Crossing] = deque()  # not handed out
        self._hands_out = False
        self._on_host: Reduction = DONE
        self._between: Sums | None = None
        self._over_all: Sums | None = None
        self._pipeline = Pipeline(_WIDTHS)
        super().__init__(host, device)
        self._slices = Slices(self._cupy, self._nccl, self._lane.stream, self.topology)
        self._is_alone = self.topology.local_size == 1
        if self.topology.num_nodes > 1:
            self._between = between(host, self.topology.local_rank if self._slices.has_own else None)
            self._over_all = between(host, 0)
            with self._naming("making room for pieces"), self._device:
                self._staging = Staging(self._cupy, sum(_WIDTHS), PIECE_BYTES)
            self._connect()

    def broadcast(self, array: Array, root: int = 0) -> None:
        if not (self._crosses(array) and 0 <= root < self.world_size):
            super().broadcast(array, root)
            return
        with self._inside("broadcast"), self._naming("broadcast"), self._device:
            values = self._cupy.asnumpy(array)
            self._broadcast(values, root)
            # As bytes: cupy's copies of halves need CUDA's headers.
            array.reshape(-1).view(np.uint8)[...] = self._cupy.asarray(values.reshape(-1).view(np.uint8))

    def all_reduce(self, array: Array) -> None:
        if not self._crosses(array):
            super().all_reduce(array)
            return
        with self._inside("all_reduce"):
            crossing = self._cross(array)
            crossing.wait()
            self.wait_for(crossing.is_over)

    def start_all_reduce(self, array: Array) -> Reduction:
        if not self._crosses(array):
            return super().start_all_reduce(array)
        with self._inside("start_all_reduce"):
            return self._cross(array)

    def all_gather(self, array: Array) -> Array:
        if not self._crosses(array):
            return super().all_gather(array)
        with self._inside("all_gather"), self._naming("all_gather"), self._device:
            gathered: Array = self._cupy.asarray(self._all_gather(self._cupy.asnumpy(array)))
        return gathered

    def wait_for(self, is_over: Callable[[], bool], collective: str = "all_reduce") -> None:
        def moves_on_and_is_over() -> bool:
            self._move_on()
            if self._over_all is not None:
                # Other ranks, and so this one's GPU, may wait for what MPI has still to send from here.
                self._over_all.move_on()
            return is_over()

        super().wait_for(moves_on_and_is_over, collective)

    def close(self) -> None:
        self._settle()
        for sums in (self._between, self._over_all):
            if sums is not None:
                sums.close()
        self._between = self._over_all = None
        super().close()

    def _peers(self) -> Sequence[int]:
        """Return the ranks of this host."""
        return [rank for rank, host in enumerate(self.topology.hosts) if host == self.topology.host]

    def _connect(self) -> None:
        """Let NCCL connect the ranks of each host, for which the first call of each kind blocks the host.

        Later a rank might wait there for one that waits for this one's part of a sum between hosts.
        """
        call = "connecting the GPUs of one host"
        with self._naming(call), self._device:
            array = self._cupy.zeros(self._slices.count, np.float32)
            self._lane.run(lambda: self._slices.sum(array), array)
            connected = self._lane.run(lambda: self._slices.hand_out(array), array)
        self.wait_for(connected.is_over, call)

    def _crosses(self, array: DeviceArray) -> bool:
        """Return whether `array` is a device array with something to bring from host to host."""
        return self.topology.num_nodes > 1 and self._is_on_device(array) and array.size > 0

    def _cross(self, array: DeviceArray) -> _Crossing:
        """Start the sum of `array` over all ranks."""
        self._on_host.wait()  # two kinds under way, of which two ranks await one each, would wait for ever
        self._on_host = DONE
        if self._hands_out:
            self._settle()
        crossing = _Crossing(self, array.reshape(-1), self.ordered_sums)
        with self._naming("all_reduce"), self._device:
            self._lane.run(lambda: self._enqueue_inside(crossing), array)
            ready = mark(self._cupy, self._lane.stream)
            crossing.between = self._pipeline.start(self._pieces(crossing, ready))
        self._crossings.append(crossing)
        return crossing

    def _enqueue_inside(self, crossing: _Crossing) -> None:
        """Sum a crossing's values inside the host, in float32 if they are halves."""
        if crossing.is_ordered:
            return
        # Where each host has one rank, halves travel as they are: the sum between hosts takes float32 itself.
        if crossing.array.dtype in HALVES and self.world_size > self.topology.num_nodes:
            with self._lane.stream:
                crossing.values = self._cupy.empty(crossing.array.size, np.float32)
                self._kernels_of(crossing.array.dtype).decompress(crossing.array, crossing.values, 1)
        self._slices.sum(crossing.values)

    def _pieces(self, crossing: _Crossing, ready: Any) -> Iterator[Piece]:
        """Return the pieces in which this rank's part of a crossing goes between hosts."""
        if crossing.is_ordered and self._over_all is not None:
            return self._staging.pieces(crossing.values, crossing.array, ready, self._over_all.in_order)
        if self._between is None:
            return iter(())
        values, array = self._slices.own(crossing.values), self._slices.own(crossing.array)
        return self._staging.pieces(values, array, ready, self._sum_between)

    def _sum_between(self, values: Array, result: Array) -> Piece:
        assert self._between is not None
        if values.dtype == result.dtype not in HALVES and self.topology.num_nodes > MOST_SENT_TO_ALL:
            return self._between.plain(result)
        return self._between.in_order(values, result)

    def _move_on(self) -> None:
        """Move sums between hosts on, as far as goes without waiting, and hand out what may be."""
        with self._device:
            self._pipeline.move_on()
            while self._crossings and self._crossings[0].is_summed:
                if not (self._hands_out or self._is_for_this_rank_alone(self._crossings[0])):
                    return
                self._hand_out(self._crossings.popleft())

    def _is_for_this_rank_alone(self, crossing: _Crossing) -> bool:
        """Return whether the sums are where they belong already."""
        return self._is_alone or crossing.is_ordered

    def _hand_out(self, crossing: _Crossing) -> None:
        crossing.handed_out = DONE
        if not self._is_for_this_rank_alone(crossing):
            with self._lane.stream:  # which then waits for itself alone, not for the caller's
                crossing.handed_out = self._lane.run(
                    lambda: self._slices.hand_out(crossing.array), crossing.array
                )

    def _test(self, crossing: _Crossing) -> bool:
        self.check()
        with self._naming("all_reduce"):
            self._move_on()
            return crossing.handed_out is not None and crossing.handed_out.test()

    def _wait(self, crossing: _Crossing) -> None:
        if crossing.handed_out is None:
            self._hands_out = True
            self.wait_for(lambda: crossing.handed_out is not None)

    def _settle(self) -> None:
        """Wait until all that was started is handed out: it would stand still in calls that block."""
        if self._crossings:
            call = self.activity.collective
            self._wait(self._crossings[-1])
            self.activity.collective = call
        self._hands_out = False

    # The base class calls these for arrays in host memory alone.

    def _broadcast(self, array: Array, root: int) -> None:
        self._settle()
        super()._broadcast(array, root)

    def _all_reduce(self, array: Array) -> None:
        self._settle()
        super()._all_reduce(array)

    def _start_all_reduce(self, array: Array) -> Reduction:
        self._settle()
        self._on_host = super()._start_all_reduce(array)
        return self._on_host

    def _allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        self._settle()
        return super()._allocate(num_elements, dtype)

    def _all_gather(self, array: Array) -> Array:
        self._settle()
        return super()._all_gather(array)

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        self._settle()
        return super()._all_gather_bytes(payload)

    def _barrier(self) -> None:
        self._settle()
        super()._barrier()


class _Crossing(Reduction):
    """The sum of an array over all ranks, on its way between hosts and back.

    array: (n,), overwritten in the end. values: (n,), what is summed: `array`, or its values in float32. Both are
    held here: cupy would give their memory to others.
    """

    def __init__(
        self, communicator: NcclHierarchicalCommunicator, array: DeviceArray, is_ordered: bool
    ) -> None:
        self._communicator = communicator
        self.array = self.values = array
        self.is_ordered = is_ordered
        self.between: Reduction = DONE
        self.handed_out: Reduction | None = None

    @property
    def is_summed(self) -> bool:
        """Whether this rank's part is back from the other hosts."""
        return self.between.test()

    def is_over(self) -> bool:
        """Return whether all sums are in `array`."""
        return self.handed_out.is_over() if isinstance(self.handed_out, Transfer) else self.handed_out is DONE

    def test(self) -> bool:
        return self._communicator._test(self)

    def wait(self) -> None:
        self._communicator._wait(self)
        if self.handed_out is not None:
            self.handed_out.wait()
