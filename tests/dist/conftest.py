"""Running one test body on ranks of every kind of communicator."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from dtrain.dist import mpi
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks

Body = Callable[[Communicator], None]

SMALL_CHUNK_BYTES = 4096  # so that arrays of several chunks are quick to check

# Under mpirun (test_mpi.py starts it) this process is one rank, and the world's size is mpirun's.
UNDER_MPIRUN = "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ
KINDS = ["mpi"] if UNDER_MPIRUN else ["single", "threads-1", "threads-2", "threads-3", "threads-4"]


@pytest.fixture(scope="session")
def mpi_communicator() -> Iterator[Communicator]:
    communicator = create_communicator("mpi", os.environ)
    yield communicator
    communicator.close()


@pytest.fixture(params=KINDS)
def on_all_ranks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    """Return a function that runs a body on each rank of one kind of communicator."""
    monkeypatch.setattr(mpi, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
    kind = request.param
    if kind == "mpi":
        communicator = request.getfixturevalue("mpi_communicator")
        return partial(_run_under_mpi, communicator)
    if kind == "single":
        return lambda body: body(SingleCommunicator())
    return partial(_run_in_threads, int(kind.removeprefix("threads-")))


def _run_in_threads(world_size: int, body: Body) -> None:
    run_ranks(world_size, body)


def _run_under_mpi(communicator: Communicator, body: Body) -> None:
    try:
        body(communicator)
    except BaseException:
        traceback.print_exc()  # the other ranks would wait in the next collective call
        communicator.abort(1)
