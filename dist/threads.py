"""Ranks as threads of one process: the communicator with which tests run a job of any size without MPI.

In the flow prototxt → graph → net → solver → communicator → snapshot it takes the place of mpi.py. Sums are
taken in rank order, so results are the same each time.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, NoReturn, TypeVar

import numpy as np

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.errors import ClusterError
from dtrain.dist.meeting import Meeting
from dtrain.dist.sums import sum_in_order
from dtrain.dist.topology import Topology, topology_from_hosts

T = TypeVar("T")


class JobAborted(ClusterError):
    """End a thread that has called `abort`, where a process would have been ended."""

    def __init__(self, rank: int, exit_code: int) -> None:
        super().__init__(f"rank {rank} aborted the job with exit code {exit_code}")
        self.exit_code = exit_code


class ThreadsCommunicator(Communicator):
    """Exchange arrays between threads that share a Meeting."""

    name = "threads"

    def __init__(self, topology: Topology, meeting: Meeting) -> None:
        super().__init__(topology)
        self._meeting = meeting

    def abort(self, exit_code: int) -> NoReturn:
        """Release the other ranks with a ClusterError and raise JobAborted, since threads cannot be ended."""
        aborted = JobAborted(self.rank, exit_code)
        self._meeting.break_up(str(aborted))
        raise aborted

    def close(self) -> None:
        """Do nothing: run_ranks owns the meeting."""

    def _broadcast(self, array: Array, root: int) -> None:
        call = f"broadcast({_form(array)}, root={root})"
        arrays = self._meeting.swap(self.rank, call, array)
        if self.rank != root:
            np.copyto(array, arrays[root])
        self._let_go(call)

    def _all_reduce(self, array: Array) -> None:
        call = f"all_reduce({_form(array)})"
        arrays = self._meeting.swap(self.rank, call, array)
        total = np.empty_like(array)
        sum_in_order(arrays, total)
        self._let_go(call)
        array[...] = total

    def _all_gather(self, array: Array) -> Array:
        call = f"all_gather({_form(array)})"
        gathered: Array = np.stack(self._meeting.swap(self.rank, call, array))
        self._let_go(call)
        return gathered

    def _all_gather_bytes(self, payload: bytes) -> list[bytes]:
        return list(self._meeting.swap(self.rank, "all_gather_bytes", payload))

    def _barrier(self) -> None:
        self._meeting.swap(self.rank, "barrier", None)

    def _let_go(self, call: str) -> None:
        """Wait until all ranks have read the arrays of the others, which may then be written."""
        self._meeting.swap(self.rank, f"{call}, second half", None)


def _form(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


class _Results(Generic[T]):
    """What the ranks returned, and the first exception that any of them raised."""

    def __init__(self) -> None:
        self.returned: dict[int, T] = {}
        self.failure: BaseException | None = None
        self._lock = threading.Lock()

    def note_failure(self, error: BaseException) -> None:
        """Keep `error` if it is the first: later ones are its consequences."""
        with self._lock:
            self.failure = self.failure or error


def run_ranks(
    world_size: int,
    body: Callable[[Communicator], T],
    hosts: Sequence[str] | None = None,
    timeout_s: float = 60.0,
) -> list[T]:
    """Run `body` once for each rank, each in a thread of its own; return what they returned, in rank order.

    The first exception of any rank is raised again here, after the others were released from their calls with
    a ClusterError.

    Arguments:
        hosts: the host name of each rank, to play several nodes; by default all are on this one.
        timeout_s: how long all ranks together may take; the safety net against a body that never returns.

    Raises:
        ClusterError: ranks made different calls, one ended early, or the time was up.
    """
    meeting = Meeting(world_size)
    results: _Results[T] = _Results()
    names = list(hosts) if hosts is not None else [socket.gethostname()] * world_size
    assert len(names) == world_size, f"hosts must name {world_size} hosts, got {len(names)}"
    threads = [
        threading.Thread(
            target=_run_rank,
            args=(ThreadsCommunicator(topology_from_hosts(names, rank), meeting), meeting, body, results),
            name=f"rank-{rank}",
            daemon=True,
        )
        for rank in range(world_size)
    ]
    _join_all(threads, meeting, results, timeout_s)
    if results.failure is not None:
        raise results.failure
    return [results.returned[rank] for rank in range(world_size)]


def _run_rank(
    communicator: Communicator, meeting: Meeting, body: Callable[[Communicator], T], results: _Results[T]
) -> None:
    rank = communicator.rank
    try:
        results.returned[rank] = body(communicator)
    except BaseException as error:  # run_ranks raises it again, in the thread that called it
        results.note_failure(error)
        meeting.break_up(f"rank {rank} failed: {type(error).__name__}: {error}")
    finally:
        meeting.end(rank)


def _join_all(
    threads: list[threading.Thread], meeting: Meeting, results: _Results[Any], timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = [thread.name for thread in threads if thread.is_alive()]
    if late:
        reason = f"{', '.join(late)} did not end within {timeout_s:g} s ({meeting.state()})"
        results.note_failure(ClusterError(reason))
        meeting.break_up(reason)
