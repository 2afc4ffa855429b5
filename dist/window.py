"""Ranks of one host that exchange gradients through memory which all of them have mapped.

In the flow prototxt → graph → net → solver → communicator → snapshot this is the communicator of a job on one
host; hierarchical.py takes the inside of each host from here.
"""

from __future__ import annotations

import logging
import platform
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.errors import LaunchError
from dtrain.dist.memory import aligned_zeros
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.pipeline import Pipeline
from dtrain.dist.reduction import Reduction
from dtrain.dist.waiting import Steps
from dtrain.dist.window_channel import PART_BYTES, WindowChannel
from dtrain.dist.window_memory import WindowError, WindowMemory

log = logging.getLogger(__name__)

# These show each core the writes of another in the order in which they were made.
ORDERED_MACHINES = ("x86_64", "AMD64", "i686", "i386")


class Window:
    """The common memory of the ranks of one host: channels, and arenas. Making one is collective.

    Arguments:
        mpi: mpi4py's module.
        comm: an mpi4py communicator of these ranks.
        num_channels: how many rows of exchanges may be under way at a time.

    Attributes:
        channels: those rows.

    Raises:
        WindowError: on all ranks, if there can be no common memory.
    """

    def __init__(self, mpi: ModuleType, comm: Any, num_channels: int) -> None:
        self._comm = comm
        self._fence = None if platform.machine() in ORDERED_MACHINES else Fence(mpi)
        self._arenas: list[WindowMemory] = []
        memory = WindowMemory(comm, PART_BYTES * num_channels)
        self._kept = memory.take()
        parts = memory.parts()
        self.channels = [
            WindowChannel(
                comm.Get_rank(),
                [part[number * PART_BYTES :][:PART_BYTES] for part in parts],
                self._arenas,
                self._fence,
            )
            for number in range(num_channels)
        ]

    def allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Return this rank's part of a new arena, zeros (num_elements,). Collective.

        If there is no more common memory it is plain memory, and a warning says so: sums take longer then.
        """
        try:
            arena = WindowMemory(self._comm, num_elements * dtype.itemsize)
        except WindowError as error:
            if self._comm.Get_rank() == 0:
                log.warning("window: %s; taking plain memory, whose sums take longer", error)
            return aligned_zeros(num_elements, dtype)
        self._arenas.append(arena)
        return arena.take().view(dtype)

    def close(self) -> None:
        """Let go of the memory; arenas stay as long as arrays look into them."""
        self.channels = []
        if self._fence is not None:
            self._fence.close()


class Fence:
    """Keeps what was done in memory before a call from being seen after what is done behind it.

    MPI has such a fence for windows of its own; it needs one to call it on.
    """

    def __init__(self, mpi: ModuleType) -> None:
        self._window: Any = mpi.Win.Create(None, comm=mpi.COMM_SELF)
        self._window.Lock_all()

    def __call__(self) -> None:
        self._window.Sync()

    def close(self) -> None:
        """Give the window back."""
        self._window.Unlock_all()
        self._window.Free()


class WindowCommunicator(Communicator):
    """Exchange gradients through common memory, all else as `base` does. Making one is collective.

    Sums are taken in rank order. An array from `allocate` is summed where it lies; others pass through buffers.

    Raises:
        LaunchError: ranks are on several hosts, or the host gives them no common memory.
    """

    name = "window"

    def __init__(self, base: MpiCommunicator) -> None:
        super().__init__(base.topology)
        if self.topology.num_nodes > 1:
            raise LaunchError(
                f"communicator: window must have all ranks on one host, got {self.topology.num_nodes} hosts;"
                " use hierarchical or mpi"
            )
        self._base = base
        try:
            self._window = Window(base.mpi, base.comm, num_channels=2)
        except WindowError as error:
            raise LaunchError(
                f"communicator: window must have common memory, got: {error}; use mpi"
            ) from error
        self._calls, self._reductions = self._window.channels
        self._started = Pipeline([1])

    def abort(self, exit_code: int) -> NoReturn:
        self._base.abort(exit_code)

    def close(self) -> None:
        self._started.finish()
        self._window.close()
        self._base.close()

    def _start_all_reduce(self, array: Array) -> Reduction:
        return self._started.start(iter([[self._reductions.all_reduce(array)]]))

    def _all_reduce(self, array: Array) -> None:
        self._started.run(self._calls.all_reduce(array, self._all_reduce_elsewhere))

    def _all_reduce_elsewhere(self, array: Array) -> Steps:
        if self._base.any_order_will_do(array):
            # MPI can let one process read the memory of another, which takes fewer copies than buffers do.
            self._started.finish()
            self._base.all_reduce(array)
        else:
            yield from self._calls.all_reduce_by_pieces(array)

    def _broadcast(self, array: Array, root: int) -> None:
        self._started.run(self._calls.broadcast(array, root))

    def _allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        self._started.finish()
        return self._window.allocate(num_elements, dtype)

    # MPI's calls block, so that reductions under way would stand still in them.

    def _all_gather(self, array: Array) -> Array:
        self._started.finish()
        return self._base.all_gather(array)

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        self._started.finish()
        return self._base.all_gather_bytes(payload)

    def _barrier(self) -> None:
        self._started.finish()
        self._base.barrier()
