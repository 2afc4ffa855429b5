"""Running a test's body on several ranks, as threads, or for real.

`pytest` runs the ranks as threads of its process. `mpirun -n N python -m pytest tests/core/solver` runs the
same bodies on MPI: every process is one of N ranks, and WORLD_SIZES is N alone. What a test compares with,
one rank, then runs on rank 0 while the others wait.
"""

from __future__ import annotations

import functools
import os
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks

T = TypeVar("T")

UNDER_MPIRUN = int(os.environ.get("OMPI_COMM_WORLD_SIZE") or os.environ.get("PMI_SIZE") or 1)
WORLD_SIZES = [UNDER_MPIRUN] if UNDER_MPIRUN > 1 else [2, 4]


def on_ranks(world_size: int, body: Callable[[Communicator], T]) -> list[T]:
    """Run `body` on each of `world_size` ranks and return what they return, in rank order."""
    if UNDER_MPIRUN == 1:
        return run_ranks(world_size, body)
    world = _world()
    assert world_size in (1, world.world_size), f"{world_size} ranks cannot run on {world.world_size}"
    try:
        if world_size == 1:
            returned = [body(SingleCommunicator())] if world.rank == 0 else []
            return pickle.loads(world.all_gather_bytes(pickle.dumps(returned))[0])
        return [pickle.loads(each) for each in world.all_gather_bytes(pickle.dumps(body(world)))]
    except BaseException:
        traceback.print_exc()  # the other ranks would wait in the next collective call
        world.abort(1)


def shared_path(path: Path) -> Path:
    """Return rank 0's `path` on every rank."""
    if UNDER_MPIRUN == 1:
        return path
    return Path(_world().all_gather_bytes(os.fsencode(path))[0].decode())


def is_first() -> bool:
    """Return whether this process is the one that writes what all read."""
    return UNDER_MPIRUN == 1 or _world().rank == 0


def wait_for_all() -> None:
    """Return when every process has come here."""
    if UNDER_MPIRUN > 1:
        _world().barrier()


@functools.cache
def _world() -> Communicator:
    return create_communicator("mpi", os.environ)
