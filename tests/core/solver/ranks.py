"""Running a test's body on several ranks, as threads, or for real.

`pytest` runs the ranks as threads of its process. `mpirun -n N python -m pytest tests/core/solver` runs the
tests that ask for `on_ranks`, and no others, on MPI: every process is one of N ranks, and WORLD_SIZES is N
alone. What such a test compares with, one rank, then runs on rank 0 while the others wait; what is on one rank only
is left out, and of long tables there are a few rows.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks

T = TypeVar("T")

NUM_PROCESSES = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or 1)
UNDER_MPIRUN = NUM_PROCESSES > 1
WORLD_SIZES = [NUM_PROCESSES] if UNDER_MPIRUN else [2, 4]
SEVERAL = WORLD_SIZES[0]


class OnRanks(Protocol):
    """Run `body` on each of `world_size` ranks and return what they return, in rank order, on every process."""

    def __call__(self, world_size: int, body: Callable[[Communicator], T]) -> list[T]: ...


def run_under_mpi(world_size: int, body: Callable[[Communicator], T]) -> list[T]:
    """Run `body` on this process, which is a rank of `world_size`, or on rank 0 alone if that is 1."""
    world = _world()
    assert world_size in (1, world.world_size), f"{world_size} ranks cannot run on {world.world_size}"
    try:
        if world_size > 1:
            return [pickle.loads(each) for each in world.all_gather_bytes(pickle.dumps(body(world)))]
        returned = [body(SingleCommunicator())] if is_first() else []
        of_rank_0: list[T] = pickle.loads(world.all_gather_bytes(pickle.dumps(returned))[0])
        return of_rank_0
    except BaseException:
        end_all(traceback.format_exc())


on_ranks: OnRanks = run_under_mpi if UNDER_MPIRUN else run_ranks


def end_all(reason: str) -> NoReturn:
    """End all processes: those without this failure would wait for this one in their next collective call."""
    sys.stderr.write(f"{reason}\n")
    _world().abort(1)


def shared_path(path: Path) -> Path:
    """Return rank 0's `path` on every process."""
    return Path(os.fsdecode(_world().all_gather_bytes(os.fsencode(path))[0])) if UNDER_MPIRUN else path


def is_first() -> bool:
    """Return whether this process is the one that writes what all read."""
    return not UNDER_MPIRUN or _world().rank == 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    if UNDER_MPIRUN:
        _world().barrier()


@functools.cache
def _world() -> Communicator:
    return create_communicator("mpi", os.environ)
