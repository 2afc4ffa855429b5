"""A plugin of pytest: runs the communicators' suite on the hosts that there are, where tests/dist plays hosts.

Loaded by test_hosts.py in place of tests/dist/conftest.py, on each rank.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator

import pytest

from dtrain.dist import hierarchical, mpi
from dtrain.dist.communicator import Communicator
from dtrain.dist.hierarchical import HierarchicalCommunicator
from dtrain.dist.mpi import MpiCommunicator

Body = Callable[[Communicator], None]

SMALL_CHUNK_BYTES = 4096  # so that arrays of several chunks are quick to check

KINDS: dict[str, Callable[[], Communicator]] = {
    "mpi": MpiCommunicator,
    "hierarchical": lambda: HierarchicalCommunicator(MpiCommunicator()),
}


@pytest.fixture(scope="session")
def communicators() -> Iterator[dict[str, Communicator]]:
    """One of each kind, made with small sizes: their buffers are laid out by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpi, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
        patch.setattr(hierarchical, "CHUNK_BYTES", SMALL_CHUNK_BYTES)
        made = {kind: make() for kind, make in KINDS.items()}
        yield made
        for communicator in made.values():
            communicator.close()


@pytest.fixture(params=KINDS)
def on_all_ranks(
    request: pytest.FixtureRequest, communicators: dict[str, Communicator]
) -> Callable[[Body], None]:
    """Return a function that runs a body on this rank; if it fails here, the job is ended."""
    communicator = communicators[request.param]

    def run(body: Body) -> None:
        try:
            body(communicator)
        except BaseException:
            traceback.print_exc()  # the other ranks would wait in the next collective call
            communicator.abort(1)

    return run
