"""Which GPU a rank takes, and two ranks on one: tables."""

from __future__ import annotations

import pytest

from dtrain.dist.errors import LaunchError
from dtrain.dist.nccl_devices import choose_device, with_devices
from dtrain.dist.topology import topology_from_hosts

TWO_HOSTS = ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("rank", "num_devices", "asked_for", "device"),
    [(0, 2, None, 0), (1, 2, None, 1), (3, 8, None, 1), (1, 1, None, 0), (1, 4, 3, 3), (0, 2, 1, 1)],
)
def test_choose_device_takes_the_asked_the_only_or_that_of_the_local_rank(
    rank: int, num_devices: int, asked_for: int | None, device: int
) -> None:
    assert choose_device(topology_from_hosts(TWO_HOSTS, rank), num_devices, asked_for) == device


@pytest.mark.parametrize(
    ("hosts", "num_devices", "asked_for", "text"),
    [
        (["a"], 0, None, "nccl: a must have a GPU, got none"),
        (
            ["a", "a", "a"],
            2,
            None,
            "nccl: a must have a GPU for each of its ranks, got 2 for 3; start at most 2",
        ),
        (["a"], 2, 2, "nccl: the GPU must be 0 to 1 on a, got 2"),
        (["a"], 2, -1, "nccl: the GPU must be 0 to 1 on a, got -1"),
    ],
)
def test_choose_device_that_is_not_there_raises(
    hosts: list[str], num_devices: int, asked_for: int | None, text: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        choose_device(topology_from_hosts(hosts, len(hosts) - 1), num_devices, asked_for)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("addresses", [["0", "1", "0", "1"], ["0", "1", "2", "3"]])
def test_with_devices_of_one_rank_each_names_them(addresses: list[str]) -> None:
    topology = topology_from_hosts(TWO_HOSTS, 1)
    completed = with_devices(topology, addresses)
    assert completed.devices == tuple(
        f"{address} of {host}" for address, host in zip(addresses, "aabb", strict=True)
    )
    assert (completed.rank, completed.hosts) == (1, topology.hosts)


def test_with_devices_of_two_ranks_on_one_names_both_on_every_rank() -> None:
    for rank in range(4):
        with pytest.raises(LaunchError) as caught:
            with_devices(
                topology_from_hosts(TWO_HOSTS, rank), ["0000:41:00.0", "x", "0000:41:00.0", "0000:41:00.0"]
            )
        assert str(caught.value) == (
            "nccl: each rank must have a GPU of its own, got: rank 2 (b) and rank 3 (b) share device 0000:41:00.0"
            " of b; start fewer ranks a host, or use another communicator"
        )
