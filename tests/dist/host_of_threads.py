"""The ranks of one host as threads, with as much of an mpi4py communicator as common memory is made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dtrain.dist.communicator import Communicator
from dtrain.dist.threads import ThreadsCommunicator, run_ranks

T = TypeVar("T")


class ThreadsComm:
    """Stands in for the mpi4py communicator of the host's ranks."""

    def __init__(self, communicator: Communicator) -> None:
        assert isinstance(communicator, ThreadsCommunicator)
        self._meeting, self._rank, self._size = (
            communicator._meeting,
            communicator.rank,
            communicator.world_size,
        )

    def Get_rank(self) -> int:
        return self._rank

    def Get_size(self) -> int:
        return self._size

    def bcast(self, value: Any) -> Any:
        return self.allgather(value)[0]

    def allgather(self, value: Any) -> list[Any]:
        return self._meeting.swap(self._rank, "allgather", value)


def run_on_host(num_ranks: int, body: Callable[[ThreadsComm], T]) -> list[T]:
    """Run `body` on each rank of a host; return what they returned."""
    return run_ranks(num_ranks, lambda communicator: body(ThreadsComm(communicator)))
