"""Memory that all ranks of a host have mapped, a part for each.

In the flow prototxt → graph → net → solver → communicator → snapshot the gradients of ranks on one host lie in
such memory, where each rank can read and write those of the others.

It is anonymous (memfd_create): it has no name that could be left behind, needs no room in /dev/shm, which many
containers keep at 64 MB, and is there as long as somebody has it mapped. The first rank makes it; the others
find it among the files that the first has open.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import secrets
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from dtrain.dist.communicator import Array

PAGE_BYTES = 4096
TOKEN_BYTES = 16
NOWHERE = -1

_byte_in: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer


class WindowError(Exception):
    """Say why the ranks of a host have no common memory; raised alike on all of them."""


class WindowMemory:
    """One piece of common memory, zeros at first. Making one is collective.

    It stays mapped as long as an array that `take` or `parts` gave, or a view of one, is referred to; this object
    does not keep it.

    Arguments:
        comm: an mpi4py communicator of ranks of one host.
        part_bytes: how much is each rank's.

    Attributes:
        kept: whatever is worth keeping as long as the memory is there; emptied when nobody refers to it any more.

    Raises:
        WindowError: on all ranks, if one of them cannot have it.
    """

    def __init__(self, comm: Any, part_bytes: int) -> None:
        # An odd number of pages: parts that lie 256 MB apart, to the byte, take a quarter longer to be summed.
        self._stride = (-(-part_bytes // PAGE_BYTES) | 1) * PAGE_BYTES if part_bytes else 0
        self._part_bytes = part_bytes
        self._num_ranks: int = comm.Get_size()
        self._first = int(comm.Get_rank()) * self._stride
        with contextlib.ExitStack() as opened:
            whole = self._map(comm, opened)
        kept: dict[Hashable, Any] = {}
        self.kept = kept
        # The base of every array that keeps the memory.
        self._whole = weakref.ref(whole, lambda _: kept.clear())
        self._address: int = whole.ctypes.data + self._first
        self._made = whole[self._first :][:part_bytes]

    def take(self) -> Array:
        """Return this rank's part, (part_bytes,) uint8, starting on a page; to be called once."""
        own = self._made
        del self._made
        return own

    def parts(self) -> list[Array]:
        """Return for each rank its part, as long as the memory is referred to."""
        whole = self._whole()
        assert whole is not None, "the memory is gone"
        return [whole[rank * self._stride :][: self._part_bytes] for rank in range(self._num_ranks)]

    def rows(self, start: int, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Return what all ranks have from byte `start` of their parts on, (num_ranks, num_elements).

        The memory must be referred to. This view does not count as referring to it, so that it may be `kept`, but
        may be looked into all the same.
        """
        whole = self._whole()
        assert whole is not None, "the memory is gone"
        shape, strides = (self._num_ranks, num_elements), (self._stride, dtype.itemsize)
        return np.ndarray(shape, dtype, whole.base, start, strides)

    def start_of(self, address: int, num_bytes: int) -> int:
        """Return where in this rank's part the bytes from `address` on begin, NOWHERE if not all are in it."""
        start = address - self._address
        is_inside = 0 <= start <= self._part_bytes - num_bytes
        return start if is_inside and self._whole() is not None else NOWHERE

    def _map(self, comm: Any, opened: contextlib.ExitStack) -> Array:
        """Return the parts of all ranks as one array, when all ranks have it."""
        # All ranks take all steps, whatever went wrong in one: none may wait for another in vain.
        path, whole, problem = "", None, ""
        token = secrets.token_bytes(TOKEN_BYTES)
        size = self._stride * self._num_ranks + TOKEN_BYTES
        try:
            if comm.Get_rank() == 0:
                path = _create(size, token, opened)
        except OSError as error:
            problem = str(error)
        path, token = comm.bcast((path, token))
        try:
            if path:
                whole = self._open(path, size, token)
        except OSError as error:
            problem = str(error)
        # Only when all have been here the first rank may close its file.
        for rank, text in enumerate(comm.allgather(problem)):
            if text:
                raise WindowError(
                    f"rank {rank} of the host cannot have {size:,} bytes of common memory: {text}"
                )
        assert whole is not None
        return whole

    def _open(self, path: str, size: int, token: bytes) -> Array:
        with open(path, "r+b") as file:
            whole = np.frombuffer(mmap.mmap(file.fileno(), size), np.uint8)
            if whole[-TOKEN_BYTES:].tobytes() != token:
                raise OSError(f"{path} is not the first rank's memory; are all ranks in one container?")
            # Each rank takes the pages of its own part, near its own core. One that is not to be had is an error
            # here; later it would be the end of the process that first writes to it.
            if self._stride:
                os.posix_fallocate(file.fileno(), self._first, self._stride)
        return whole


def address_of(array: Array) -> int:
    """Return where the elements of `array` begin, in a quarter of the time that its own attributes take.

    array: contiguous and writable, with elements.
    """
    try:
        return ctypes.addressof(_byte_in(array))
    except ValueError:  # of dtypes that are not numpy's own it gives away bytes only
        return ctypes.addressof(_byte_in(array.reshape(-1).view(np.uint8)))


def _create(size: int, token: bytes, opened: contextlib.ExitStack) -> str:
    """Make the memory; return the path under which other processes find it while it is open."""
    if not hasattr(os, "memfd_create"):
        raise OSError("this system has no memfd_create")
    file = os.memfd_create("dtrain")
    opened.callback(os.close, file)
    os.ftruncate(file, size)
    os.pwrite(file, token, size - TOKEN_BYTES)
    return f"/proc/{os.getpid()}/fd/{file}"
