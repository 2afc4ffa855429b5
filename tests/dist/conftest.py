"""Running one test body on ranks of every kind of communicator."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from dtrain.dist import hierarchical, mpi, window_channel
from dtrain.dist.communicator import Communicator
from dtrain.dist.hierarchical import HierarchicalCommunicator
from dtrain.dist.launch_environment import launched_rank, launched_world_size
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.window import WindowCommunicator

Body = Callable[[Communicator], None]

# So small that arrays of several chunks or pieces are quick to check.
SMALL_CHUNK_BYTES = 4096
SMALL_BUFFER_BYTES = 2048
SMALL_SLOT_BYTES = 256

RANK = launched_rank(os.environ) or 0
WORLD_SIZE = launched_world_size(os.environ) or 1

# Under mpirun (test_mpi.py starts it) this process is one rank, and the world's size is mpirun's. Several hosts
# are played: each rank says which one it is on.
MPI_KINDS: dict[str, Callable[[], Communicator]] = {
    "mpi": MpiCommunicator,
    "window": lambda: WindowCommunicator(MpiCommunicator()),
}
HOSTS = {
    "on one host": (range(1, 3), "host"),
    "two on a host": (range(3, 5), f"host{RANK // 2}"),
    "in turn": (range(2, 4), f"host{RANK % 2}"),
    "last alone": (range(4, 5), f"host{RANK == WORLD_SIZE - 1}"),
}
for layout, (world_sizes, host) in HOSTS.items():
    if WORLD_SIZE in world_sizes:
        MPI_KINDS[f"hierarchical, {layout}"] = lambda host=host: HierarchicalCommunicator(
            MpiCommunicator(host)
        )
# An environment with MPICH instead of Open MPI, which `make` installs here.
MPICH = Path(os.environ.get("DTRAIN_MPICH", Path(__file__).resolve().parents[2] / ".venv-mpich"))
UNDER_MPIRUN = "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ
KINDS = list(MPI_KINDS) if UNDER_MPIRUN else ["single", *(f"threads-{n}" for n in range(1, 5))]


@pytest.fixture(params=["Open MPI", "MPICH"])
def python_of_mpi(request: pytest.FixtureRequest) -> str:
    """Return the Python of an environment with this MPI."""
    if request.param == "Open MPI":
        return sys.executable
    if not (MPICH / "bin/mpirun").exists():
        pytest.skip(f"there is no environment with MPICH at {MPICH}")
    return str(MPICH / "bin/python")


@pytest.fixture(scope="session")
def mpi_communicators() -> Iterator[dict[str, Communicator]]:
    """One of each kind, made with small sizes: their buffers are laid out by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpi, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
        patch.setattr(hierarchical, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
        patch.setattr(window_channel, "BUFFER_BYTES", SMALL_BUFFER_BYTES)
        patch.setattr(window_channel, "SLOT_BYTES", SMALL_SLOT_BYTES)
        communicators = {kind: make() for kind, make in MPI_KINDS.items()}
        yield communicators
        for communicator in communicators.values():
            communicator.close()


@pytest.fixture(params=KINDS)
def on_all_ranks(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Return a function that runs a body on each rank of one kind of communicator."""
    kind = request.param
    if kind in MPI_KINDS:
        return partial(_run_under_mpi, request.getfixturevalue("mpi_communicators")[kind])
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
