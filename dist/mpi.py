"""Ranks as MPI processes: the communicator of real jobs, over mpi4py, which is imported here only.

In the flow prototxt → graph → net → solver → communicator → snapshot this carries gradients between processes
and hosts. MPI is loaded and initialised when the first MpiCommunicator is made, not when this module is
imported.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.flush import flush_output
from dtrain.dist.launch_environment import check_world_size
from dtrain.dist.mpi_settings import mpi_settings
from dtrain.dist.topology import topology_from_hosts

# A sum of 240 MB runs at 10 GB/s in blocking chunks of this size and at 3 GB/s in one call: a chunk and its
# copy on the way stay in the cache.
CHUNK_BYTES = 4 * 2**20


class MpiCommunicator(Communicator):
    """Exchange arrays by MPI among all ranks of the world. Making one is collective.

    Raises:
        LaunchError: mpi4py or an MPI library is missing, or mpirun belongs to another MPI.
    """

    name = "mpi"

    def __init__(self) -> None:
        self._mpi = load_mpi()
        world = self._mpi.COMM_WORLD
        check_world_size(os.environ, world.Get_size(), mpi_library(self._mpi))
        # Messages of a user's own mpi4py code travel in the world's context, ours in a copy of it.
        self._comm = world.Dup()
        hosts = self._comm.allgather(self._mpi.Get_processor_name())
        super().__init__(topology_from_hosts(hosts, self._comm.Get_rank()))

    def abort(self, exit_code: int) -> NoReturn:
        flush_output()
        self._mpi.COMM_WORLD.Abort(exit_code)
        os._exit(exit_code)  # MPI may take a moment to end this process; nothing may run until then

    def close(self) -> None:
        self._comm.Free()

    def _broadcast(self, array: Array, root: int) -> None:
        with self._naming("broadcast"):
            for chunk in _chunks(array):
                self._comm.Bcast(chunk, root=root)

    def _all_reduce(self, array: Array) -> None:
        with self._naming("all_reduce"):
            for chunk in _chunks(array):
                self._comm.Allreduce(self._mpi.IN_PLACE, chunk, op=self._mpi.SUM)

    def _all_gather(self, array: Array) -> Array:
        gathered = np.empty((self.world_size, *array.shape), array.dtype)
        with self._naming("all_gather"):
            self._comm.Allgather(_as_mpi_takes_it(array), _as_mpi_takes_it(gathered))
        return gathered

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        lengths = self._all_gather(np.array(len(payload), np.int64))
        ends = np.cumsum(lengths)
        joined = bytearray(int(ends[-1]))
        with self._naming("all_gather_bytes"):
            self._comm.Allgatherv(payload, [joined, lengths, self._mpi.BYTE])
        return [bytes(joined[end - length : end]) for end, length in zip(ends, lengths, strict=True)]

    def _barrier(self) -> None:
        with self._naming("barrier"):
            self._comm.Barrier()

    @contextmanager
    def _naming(self, call: str) -> Iterator[None]:
        """Turn MPI's own errors into a ClusterError that names the call."""
        try:
            yield
        except self._mpi.Exception as error:
            raise ClusterError(f"{self.topology.describe(self.rank)}: {call}: MPI says {error}") from error


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


def _chunks(array: Array) -> Iterator[Any]:
    """Yield the elements of `array` as views of at most CHUNK_BYTES each."""
    flat = _as_mpi_takes_it(array)
    step = CHUNK_BYTES // flat.itemsize
    for start in range(0, flat.size, step):
        yield flat[start : start + step]


def _as_mpi_takes_it(array: Array) -> Array:
    """View `array` as one row; float16, of which MPI knows nothing, as bytes: it is sent but never summed."""
    flat = array.reshape(-1)
    return flat.view(np.uint8) if array.dtype == np.float16 else flat
