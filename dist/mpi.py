"""Ranks as MPI processes: the communicator of real jobs, over mpi4py, which is imported here only.

In the flow prototxt → graph → net → solver → communicator → snapshot this carries gradients between processes
and hosts. MPI is loaded and initialised when the first MpiCommunicator is made, not when this module is
imported.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from dtrain.dist.communicator import HALVES, Array, Communicator
from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.flush import flush_output
from dtrain.dist.launch_environment import check_world_size
from dtrain.dist.mpi_settings import mpi_settings
from dtrain.dist.mpi_sums import MOST_SENT_TO_ALL, MpiSums, chunks
from dtrain.dist.pipeline import Piece, Pipeline
from dtrain.dist.reduction import Reduction
from dtrain.dist.topology import topology_from_hosts
from dtrain.dist.waiting import wait_until

# A sum of 240 MB runs at 10 GB/s in blocking chunks of this size and at 3 GB/s in one call: a chunk and its
# copy on the way stay in the cache.
CHUNK_BYTES = 4 * 2**20
# Chunks of a reduction under way that MPI has at a time: on one host a second one drives the first out of the
# cache; between hosts there must be enough to send until the next look, and smaller ones fill the link better.
CHUNKS_ON_ONE_HOST = 1
CHUNKS_BETWEEN_HOSTS = 4
CHUNK_BYTES_BETWEEN_HOSTS = 2**20
# A call for so little does not wait for the reductions under way, but passes them.
SMALL_BYTES = 2**16


class MpiCommunicator(Communicator):
    """Exchange arrays by MPI among all ranks of the world. Making one is collective.

    Reductions under way move on when they are tested, or this rank is in another collective call.

    Arguments:
        host: by which name this rank's host is known; by default MPI's.

    Attributes:
        mpi: mpi4py's module.
        comm: the mpi4py communicator of all ranks, for what is built upon this one.

    Raises:
        LaunchError: mpi4py or an MPI library is missing, or mpirun belongs to another MPI.
    """

    name = "mpi"

    def __init__(self, host: str | None = None) -> None:
        self.mpi = load_mpi()
        world = self.mpi.COMM_WORLD
        host = host or self.mpi.Get_processor_name()
        check_world_size(os.environ, world.Get_size(), mpi_library(self.mpi), host)
        # Messages of a user's own mpi4py code travel in the world's context, ours in a copy of it.
        self.comm: Any = world.Dup()
        hosts = self.comm.allgather(host)
        super().__init__(topology_from_hosts(hosts, self.comm.Get_rank()))
        width = CHUNKS_ON_ONE_HOST if self.topology.num_nodes == 1 else CHUNKS_BETWEEN_HOSTS
        self._pipelines = self._started, self._calls = Pipeline([width, width]), Pipeline([width, width])
        self._sums: dict[Pipeline, MpiSums] = {}
        self._may_be_under_way = False  # alike on all ranks, which the reductions left on each are not

    def abort(self, exit_code: int) -> NoReturn:
        flush_output()
        self.mpi.COMM_WORLD.Abort(exit_code)
        os._exit(exit_code)  # MPI may take a moment to end this process; nothing may run until then

    def close(self) -> None:
        self.settle()
        for sums in self._sums.values():
            sums.close()
        self.comm.Free()

    def settle(self) -> None:
        """Wait for the reductions under way: MPI would not move them on in a call that blocks. Collective."""
        if not self._started.is_empty:
            self._started.finish()
        self._may_be_under_way = False

    def _start_all_reduce(self, array: Array) -> Reduction:
        self._may_be_under_way = True
        return self._started.start(self._pieces(self._started, array))

    def _all_reduce(self, array: Array) -> None:
        passes = self._may_be_under_way and array.nbytes <= SMALL_BYTES
        if passes or self._sums_in_order(array) or not self.any_order_will_do(array):
            self._calls.start(self._pieces(self._calls, array))
            wait_until(
                lambda: any([self._calls.move_on(), self._started.move_on()]), lambda: self._calls.is_empty
            )
            return
        self.settle()
        with self.naming("all_reduce"):
            for chunk in chunks(array, CHUNK_BYTES):
                self.comm.Allreduce(self.mpi.IN_PLACE, chunk, op=self.mpi.SUM)

    def _broadcast(self, array: Array, root: int) -> None:
        self.settle()
        with self.naming("broadcast"):
            for chunk in chunks(_as_mpi_takes_it(array), CHUNK_BYTES):
                self.comm.Bcast(chunk, root=root)

    def _all_gather(self, array: Array) -> Array:
        self.settle()
        gathered = np.empty((self.world_size, *array.shape), array.dtype)
        with self.naming("all_gather"):
            self.comm.Allgather(_as_mpi_takes_it(array), _as_mpi_takes_it(gathered))
        return gathered

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        lengths = self._all_gather(np.array(len(payload), np.int64))
        ends = np.cumsum(lengths)
        joined = bytearray(int(ends[-1]))
        with self.naming("all_gather_bytes"):
            self.comm.Allgatherv(payload, [joined, lengths, self.mpi.BYTE])
        return [bytes(joined[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    def _barrier(self) -> None:
        self.settle()
        with self.naming("barrier"):
            self.comm.Barrier()

    def _pieces(self, pipeline: Pipeline, array: Array) -> Iterator[Piece]:
        """Return what `pipeline` takes in order to sum `array`. Collective."""
        if not self._sums:  # made both at once, when nothing can be under way yet: making them blocks
            self._sums = {each: MpiSums(self.mpi, self.comm, self.naming) for each in self._pipelines}
        sums = self._sums[pipeline]
        if self._sums_in_order(array):
            return (sums.in_order(chunk, chunk) for chunk in chunks(array, self._chunk_bytes))
        return (sums.plain(chunk) for chunk in chunks(array, self._chunk_bytes))

    @property
    def _chunk_bytes(self) -> int:
        return CHUNK_BYTES if self.topology.num_nodes == 1 else min(CHUNK_BYTES, CHUNK_BYTES_BETWEEN_HOSTS)

    def any_order_will_do(self, array: Array) -> bool:
        """Return whether sums in any order have the same bits: whole numbers, or of two ranks if MPI knows them."""
        return array.dtype not in HALVES and (self.world_size <= 2 or array.dtype.kind != "f")

    def _sums_in_order(self, array: Array) -> bool:
        """Return whether the sum is dtrain's: MPI knows no numbers of two bytes, has orders of its own, and is slower
        between hosts.
        """
        if array.dtype in HALVES or (self.topology.num_nodes > 1 and self.world_size <= MOST_SENT_TO_ALL):
            return True
        return self.ordered_sums and not self.any_order_will_do(array)

    def naming(self, call: str) -> _Naming:
        """Return what turns MPI's own errors into a ClusterError that names the call."""
        return _Naming(self, call)


class _Naming:
    """See MpiCommunicator.naming. A generator's with block would take longer than a short call."""

    __slots__ = ("_call", "_communicator")

    def __init__(self, communicator: MpiCommunicator, call: str) -> None:
        self._communicator = communicator
        self._call = call

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        communicator = self._communicator
        if error is not None and isinstance(error, communicator.mpi.Exception):
            who = communicator.topology.describe(communicator.rank)
            raise ClusterError(f"{who}: {self._call}: MPI says {error}") from error


def load_mpi() -> ModuleType:
    """Load and initialise MPI; return mpi4py's module. At most the first call of a process does anything.

    Raises:
        LaunchError: mpi4py is not installed, or finds no MPI library.
    """
    os.environ.update(mpi_settings(os.environ, os.cpu_count() or 1))
    try:
        with warnings.catch_warnings():
            # Said by mpi4py on every rank; check_world_size says it once, and what to do.
            warnings.filterwarnings("ignore", "suspicious MPI execution environment")
            from mpi4py import MPI
    except ImportError as error:
        raise LaunchError(
            f"mpi: mpi4py must be installed for a job of several ranks ({error}); pip install 'dtrain[mpi]'"
        ) from error
    except RuntimeError as error:
        reason = "; ".join(str(error).splitlines())
        raise LaunchError(
            f"mpi: mpi4py must find an MPI library, got: {reason};"
            " pip install 'dtrain[mpi]', or set MPI4PY_LIBMPI to the path of libmpi.so"
        ) from error
    return MPI


def mpi_library(mpi: ModuleType) -> str:
    """Return the name and version of the MPI library, such as ``Open MPI v5.0.11``."""
    first_line = mpi.Get_library_version().splitlines()[0]
    return " ".join(first_line.split(",")[0].split()).rstrip("\0 ")


def _as_mpi_takes_it(array: Array) -> Array:
    """View `array` as one row; numbers of two bytes, of which MPI knows nothing, as bytes."""
    flat = array.reshape(-1)
    return flat.view(np.uint8) if array.dtype in HALVES else flat
