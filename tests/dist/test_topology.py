from __future__ import annotations

import pytest

from dtrain.dist.topology import Topology, topology_from_hosts

# hosts of the ranks; for each rank (local_rank, local_size, node_rank); number of nodes
TABLE = [
    (["a"], [(0, 1, 0)], 1),
    (["a", "a", "a"], [(0, 3, 0), (1, 3, 0), (2, 3, 0)], 1),
    (["a", "b"], [(0, 1, 0), (0, 1, 1)], 2),
    (["a", "a", "b", "b"], [(0, 2, 0), (1, 2, 0), (0, 2, 1), (1, 2, 1)], 2),
    (["a", "b", "a", "b"], [(0, 2, 0), (0, 2, 1), (1, 2, 0), (1, 2, 1)], 2),
    (["b", "a", "a", "b", "c"], [(0, 2, 0), (0, 2, 1), (1, 2, 1), (1, 2, 0), (0, 1, 2)], 3),
    (["a", "a", "a", "b"], [(0, 3, 0), (1, 3, 0), (2, 3, 0), (0, 1, 1)], 2),
]


@pytest.mark.parametrize(("hosts", "places", "num_nodes"), TABLE)
def test_topology_from_hosts_table(
    hosts: list[str], places: list[tuple[int, int, int]], num_nodes: int
) -> None:
    for rank, (local_rank, local_size, node_rank) in enumerate(places):
        expected = Topology(rank, len(hosts), local_rank, local_size, node_rank, num_nodes, tuple(hosts))
        assert topology_from_hosts(hosts, rank) == expected


def test_topology_describe_names_rank_and_host() -> None:
    topology = topology_from_hosts(["node3", "node7"], 0)
    assert topology.describe(1) == "rank 1 (node7)"
    assert topology.host == "node3"


DEVICES = {
    "one each": (["GPU-1", "GPU-2", "GPU-3"], ""),
    "one shared": (["GPU-1", "GPU-2", "GPU-1"], "rank 0 (a) and rank 2 (b) share device GPU-1"),
    "one without": (["GPU-1", "", "GPU-3"], "rank 1 (a) has no device"),
    "none": ([], "rank 0 (a) has no device"),
}


@pytest.mark.parametrize(("devices", "reason"), DEVICES.values(), ids=DEVICES)
def test_why_no_nccl_names_the_ranks(devices: list[str], reason: str) -> None:
    for rank in range(3):  # the same on all of them
        assert topology_from_hosts(["a", "a", "b"], rank, devices).why_no_nccl() == reason
