"""Making the communicator of a job: the table of kinds, and the choice among them.

In the flow prototxt → graph → net → solver → communicator → snapshot the launcher calls this once, before
anything else that ranks do together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import LaunchError
from dtrain.dist.hierarchical import HierarchicalCommunicator
from dtrain.dist.launch_environment import launched_world_size, launcher_of
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.nccl_devices import check_gpus
from dtrain.dist.nccl_hierarchical import NcclHierarchicalCommunicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.topology import Topology
from dtrain.dist.window import WindowCommunicator

# Those that are built upon MPI's.
BUILT_UPON_MPI: dict[str, Callable[[MpiCommunicator], Communicator]] = {
    WindowCommunicator.name: WindowCommunicator,
    HierarchicalCommunicator.name: HierarchicalCommunicator,
}
# Those of ranks with a GPU each, built upon what they have without.
BUILT_FOR_GPUS: dict[str, type[NcclCommunicator]] = {
    NcclCommunicator.name: NcclCommunicator,
    NcclHierarchicalCommunicator.name: NcclHierarchicalCommunicator,
}
# ThreadsCommunicator is missing on purpose: its ranks come from threads.run_ranks, not from a launcher.
COMMUNICATORS: dict[str, Callable[[], Communicator]] = {
    SingleCommunicator.name: SingleCommunicator,
    MpiCommunicator.name: MpiCommunicator,
    WindowCommunicator.name: lambda: WindowCommunicator(MpiCommunicator()),
    HierarchicalCommunicator.name: lambda: HierarchicalCommunicator(MpiCommunicator()),
    NcclCommunicator.name: lambda: NcclCommunicator(MpiCommunicator()),
    NcclHierarchicalCommunicator.name: lambda: NcclHierarchicalCommunicator(MpiCommunicator()),
}


def create_communicator(name: str | None, env: Mapping[str, str]) -> Communicator:
    """Make the communicator called `name`, or the one that fits where the ranks are. Collective.

    Its attribute `reason` says why it was chosen.

    Arguments:
        name: a key of COMMUNICATORS; None chooses "single" for a process that no MPI launcher started as one of
            several ranks, so that a job of one rank spends no time on loading MPI; else as `choose` does. If
            the hosts don't provide what that needs, "mpi" takes its place.
        env: the environment of this process.

    Raises:
        LaunchError: `name` is unknown or does not fit, MPI is needed and missing, or mpirun belongs to another
            MPI.
    """
    if name is None and is_alone(env):
        name = SingleCommunicator.name
    if name is None:
        return _create_fitting()
    if name not in COMMUNICATORS:
        raise LaunchError(f'communicator: unknown name "{name}"; known: {", ".join(sorted(COMMUNICATORS))}')
    communicator = COMMUNICATORS[name]()
    communicator.reason = ranks_and_hosts(communicator.topology)
    return communicator


def join_gpus(host: Communicator, device: int | None, name: str | None = None) -> Communicator:
    """Return the communicator of ranks of which this one computes on GPU `device`; None: on no GPU. Collective.

    That is NCCL's on top of `host`, if each of several ranks has a GPU of its own and finds NCCL; else `host`, whose
    `reason` then says what is missing.

    Arguments:
        host: what create_communicator made.
        name: what the user chose. A key of BUILT_FOR_GPUS makes that for one rank too; None chooses "nccl", any other
            name leaves it at `host`.

    Raises:
        LaunchError: `name` is a key of BUILT_FOR_GPUS and that can't be; on all ranks.
        ClusterError: NCCL's initialisation failed.
    """
    is_asked_for = name in BUILT_FOR_GPUS
    if not is_asked_for and (name is not None or host.world_size == 1):
        return host
    has_gpu = [payload != b"" for payload in host.all_gather_bytes(b"" if device is None else b"GPU")]
    if not is_asked_for and not any(has_gpu):
        return host
    try:
        check_gpus(host.topology, has_gpu)
        communicator = BUILT_FOR_GPUS[name or NcclCommunicator.name](host, device)
    except LaunchError as error:
        if is_asked_for:
            raise
        host.reason = f"{host.reason}; {error}"
        return host
    communicator.reason = f"{host.reason}; {host.name} for what is on the host"
    return communicator


def is_alone(env: Mapping[str, str]) -> bool:
    """Return whether a process with environment `env` is the only rank of its job."""
    return launcher_of(env) is None or launched_world_size(env) == 1


def choose(topology: Topology) -> str:
    """Return the name of the kind of communicator that fits ranks that lie so; the same on all ranks."""
    if topology.world_size == 1:
        return SingleCommunicator.name
    if topology.num_nodes == 1:
        return WindowCommunicator.name
    if topology.num_nodes < topology.world_size:
        return HierarchicalCommunicator.name
    return MpiCommunicator.name


def ranks_and_hosts(topology: Topology) -> str:
    """Return ``4 ranks on 2 hosts``."""
    ranks = "1 rank" if topology.world_size == 1 else f"{topology.world_size} ranks"
    hosts = "one host" if topology.num_nodes == 1 else f"{topology.num_nodes} hosts"
    return f"{ranks} on {hosts}"


def _create_fitting() -> Communicator:
    base = COMMUNICATORS[MpiCommunicator.name]()
    reason = ranks_and_hosts(base.topology)
    build = BUILT_UPON_MPI.get(choose(base.topology))
    communicator = base
    if build is not None and isinstance(base, MpiCommunicator):
        try:
            communicator = build(base)
        except LaunchError as error:  # all ranks raise it
            reason = f"{reason}; {error}"
    communicator.reason = reason
    return communicator
