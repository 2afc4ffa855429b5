"""Where each rank of a job runs: on which node, and as which of its local ranks.

In the flow prototxt → graph → net → solver → communicator → snapshot the communicator carries a Topology;
devices are chosen by `local_rank`, and messages about a rank name its host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Topology:
    """The place of one rank among all ranks.

    Ranks on hosts of the same name share a node. Nodes are numbered in the order of their lowest rank, local
    ranks in the order of their ranks.
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    node_rank: int
    num_nodes: int
    hosts: tuple[str, ...]  # the host of each rank, hosts[rank]
    devices: tuple[str, ...] = ()  # the device of each rank, "" where it has none; () where nobody has any

    @property
    def host(self) -> str:
        """Return the name of this rank's host."""
        return self.hosts[self.rank]

    def describe(self, rank: int) -> str:
        """Return ``rank 3 (node7)``, the way in which messages name a rank."""
        return f"rank {rank} ({self.hosts[rank]})"

    def why_no_nccl(self) -> str:
        """Return why these ranks can't exchange arrays by NCCL, which hangs rather than says so; "" if they can."""
        devices = self.devices or ("",) * self.world_size
        for rank, device in enumerate(devices):
            if not device:
                return f"{self.describe(rank)} has no device"
            first = devices.index(device)
            if first < rank:
                return f"{self.describe(first)} and {self.describe(rank)} share device {device}"
        return ""


def topology_from_hosts(hosts: Sequence[str], rank: int, devices: Sequence[str] = ()) -> Topology:
    """Compute the topology as `rank` sees it from the host names of all ranks; a pure function.

    Arguments:
        hosts: hosts[r] is the name of the host that rank r runs on.
        rank: 0 to len(hosts) - 1.
        devices: devices[r] is a name that the device of rank r has alone, such as a GPU's UUID, "" for none.
    """
    assert not devices or len(devices) == len(hosts), f"devices must be {len(hosts)}, got {len(devices)}"
    assert 0 <= rank < len(hosts), f"rank must be 0 to {len(hosts) - 1}, got {rank}"
    nodes = list(dict.fromkeys(hosts))
    host = hosts[rank]
    return Topology(
        rank=rank,
        world_size=len(hosts),
        local_rank=hosts[:rank].count(host),
        local_size=hosts.count(host),
        node_rank=nodes.index(host),
        num_nodes=len(nodes),
        hosts=tuple(hosts),
        devices=tuple(devices),
    )
