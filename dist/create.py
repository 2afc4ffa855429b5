"""Making the communicator of a job: the table of kinds, and the choice among them.

In the flow prototxt → graph → net → solver → communicator → snapshot the launcher calls this once, before
anything else that ranks do together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import LaunchError
from dtrain.dist.launch_environment import launched_world_size, launcher_of
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.single import SingleCommunicator

# ThreadsCommunicator is missing on purpose: its ranks come from threads.run_ranks, not from a launcher.
COMMUNICATORS: dict[str, Callable[[], Communicator]] = {
    SingleCommunicator.name: SingleCommunicator,
    MpiCommunicator.name: MpiCommunicator,
}


def create_communicator(name: str | None, env: Mapping[str, str]) -> Communicator:
    """Make the communicator called `name`, or the one that fits how this process was started. Collective.

    Arguments:
        name: a key of COMMUNICATORS; None chooses "mpi" for one of several ranks that an MPI launcher
            started, else "single", so that a job of one rank spends no time on loading MPI.
        env: the environment of this process.

    Raises:
        LaunchError: `name` is unknown, MPI is needed and missing, or mpirun belongs to another MPI.
    """
    if name is None:
        name = default_name(env)
    if name not in COMMUNICATORS:
        raise LaunchError(f'communicator: unknown name "{name}"; known: {", ".join(sorted(COMMUNICATORS))}')
    return COMMUNICATORS[name]()


def default_name(env: Mapping[str, str]) -> str:
    """Return the name of the communicator that fits how a process with environment `env` was started."""
    launched_alone = launcher_of(env) is None or launched_world_size(env) == 1
    return SingleCommunicator.name if launched_alone else MpiCommunicator.name
