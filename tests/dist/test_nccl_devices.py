"""Which GPU a rank takes, and two ranks on one: tables."""

from __future__ import annotations

import pytest

from dtrain.dist.errors import LaunchError
from dtrain.dist.nccl_devices import check_gpus, choose_device, with_devices
from dtrain.dist.topology import topology_from_hosts

TWO_HOSTS = ["a", "a", "b", "b"]


@pytest.mark.parametrize(
    ("rank", "num_devices", "listed", "device"),
    [
        (0, 2, [], 0),
        (1, 2, [], 1),
        (3, 8, [], 1),
        (1, 1, [], 0),  # schedulers show each rank its own
        (1, 4, [3, 0], 0),
        (2, 4, [3, 0], 3),
        (1, 1, [0], 0),
    ],
)
def test_choose_device_takes_the_listed_the_only_or_that_of_the_local_rank(
    rank: int, num_devices: int, listed: list[int], device: int
) -> None:
    assert choose_device(topology_from_hosts(TWO_HOSTS, rank), num_devices, listed) == device


@pytest.mark.parametrize(
    ("hosts", "num_devices", "listed", "text"),
    [
        (
            "aaa",
            2,
            [],
            "gpu: a must have a GPU for each of its ranks, got 2 for 3; start at most 2 ranks there",
        ),
        (
            "aaa",
            4,
            [3, 1],
            "gpu: a must have a GPU for each of its ranks, got 2 (3,1) for 3; name 3, or start at most 2 ranks there",
        ),
        (
            "ab",
            4,
            [0, 2],
            "gpu: each must have a rank of its own, got 2 GPUs for 1 rank on b; start as many ranks there:"
            " mpirun -np 2 dtrain …",
        ),
        ("a", 2, [2], "gpu: the numbers must be 0 to 1 on a, got 2; choose others"),
        ("a", 1, [1], "gpu: the numbers must be 0 on a, got 1; choose others"),
        ("a", 2, [-1], "gpu: the numbers must be 0 to 1 on a, got -1; choose others"),
    ],
)
def test_choose_device_that_is_not_there_raises(
    hosts: str, num_devices: int, listed: list[int], text: str
) -> None:
    with pytest.raises(LaunchError) as caught:
        choose_device(topology_from_hosts(list(hosts), len(hosts) - 1), num_devices, listed)
    assert str(caught.value) == text


def test_check_gpus_of_a_rank_without_names_it() -> None:
    topology = topology_from_hosts(["a", "b", "b"], 0)
    check_gpus(topology, [True, True, True])
    with pytest.raises(LaunchError) as caught:
        check_gpus(topology, [True, False, False])
    assert str(caught.value) == (
        "nccl: each rank must compute on a GPU, got: rank 1 (b) has no device; use another communicator"
    )


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
