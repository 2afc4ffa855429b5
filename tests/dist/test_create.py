from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from dtrain.dist import nccl
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import (
    BUILT_FOR_GPUS,
    BUILT_UPON_MPI,
    COMMUNICATORS,
    choose,
    create_communicator,
    is_alone,
    join_gpus,
    ranks_and_hosts,
)
from dtrain.dist.errors import LaunchError
from dtrain.dist.hierarchical import HierarchicalCommunicator
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.nccl_hierarchical import NcclHierarchicalCommunicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from dtrain.dist.topology import topology_from_hosts
from dtrain.dist.window import WindowCommunicator
from tests.dist.fake_cupy import make_fake_cupy

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

ALONE = {
    "not launched": ({}, True),
    "mpirun -n 1": ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, True),
    "mpirun -n 2": ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, False),
    "prterun, which does not tell the size": ({"PMIX_RANK": "0"}, False),
}

CHOICES = {
    "a": ("single", "1 rank on one host"),
    "aa": ("window", "2 ranks on one host"),
    "aaaa": ("window", "4 ranks on one host"),
    "ab": ("mpi", "2 ranks on 2 hosts"),
    "aab": ("hierarchical", "3 ranks on 2 hosts"),
    "abab": ("hierarchical", "4 ranks on 2 hosts"),
    "abcd": ("mpi", "4 ranks on 4 hosts"),
}


@pytest.mark.parametrize(("env", "expected"), ALONE.values(), ids=ALONE)
def test_is_alone_table(env: dict[str, str], expected: bool) -> None:
    assert is_alone(env) == expected


@pytest.mark.parametrize(("hosts", "expected"), CHOICES.items())
def test_choose_table(hosts: str, expected: tuple[str, str]) -> None:
    for rank in range(len(hosts)):  # the same on all ranks
        topology = topology_from_hosts(list(hosts), rank)
        assert (choose(topology), ranks_and_hosts(topology)) == expected


def test_create_communicator_under_mpirun_takes_what_fits(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = """
import os
from dtrain.dist.create import create_communicator
communicator = create_communicator(None, os.environ)
os.write(1, f"{communicator.name} ({communicator.reason})\\n".encode())
communicator.close()
"""
    result = mpirun(2, ["-c", program], python=python_of_mpi)
    assert (result.returncode, result.stdout) == (0, "window (2 ranks on one host)\n" * 2), result.stderr


@pytest.mark.parametrize("name", ["mpi", "window", "hierarchical"])
def test_create_communicator_by_name_under_mpirun_makes_that(
    mpirun: Mpirun, python_of_mpi: str, name: str
) -> None:
    program = f"""
import os
import numpy as np
from dtrain.dist.create import create_communicator
communicator = create_communicator("{name}", os.environ)
array = np.ones(3, np.float32)
communicator.all_reduce(array)
os.write(1, f"{{communicator.name}} {{array[0]:g}} ({{communicator.reason}})\\n".encode())
communicator.close()
"""
    result = mpirun(2, ["-c", program], python=python_of_mpi)
    assert (result.returncode, result.stdout) == (0, f"{name} 2 (2 ranks on one host)\n" * 2), result.stderr


def test_create_communicator_by_name_overrides_the_environment() -> None:
    env, _ = ALONE["mpirun -n 2"]
    communicator = create_communicator("single", env)
    assert isinstance(communicator, SingleCommunicator)
    assert communicator.reason == "1 rank on one host"


def test_create_communicator_of_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        LaunchError,
        match='^communicator: unknown name "carrier pigeon";'
        " known: hierarchical, mpi, nccl, nccl-hierarchical, single, window$",
    ):
        create_communicator("carrier pigeon", {})


def test_communicators_table_has_each_under_its_own_name() -> None:
    kinds = (
        *(SingleCommunicator, MpiCommunicator, WindowCommunicator, HierarchicalCommunicator),
        *(NcclCommunicator, NcclHierarchicalCommunicator),
    )
    assert set(COMMUNICATORS) == {kind.name for kind in kinds}
    assert {kind.name: kind for kind in kinds[2:4]} == BUILT_UPON_MPI
    assert {kind.name: kind for kind in kinds[4:]} == BUILT_FOR_GPUS


def test_create_communicator_not_launched_does_not_load_mpi() -> None:
    program = "\n".join(
        [
            "import sys",
            "from dtrain.dist.create import create_communicator",
            "create_communicator(None, {})",
            "sys.exit('mpi4py' in sys.modules)",
        ]
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=30).returncode == 0


def joined(
    monkeypatch: pytest.MonkeyPatch,
    devices: list[int | None],
    name: str | None = None,
    num_devices: int = 4,
) -> list[tuple[str, str]]:
    """Return the name and the reason of what ranks of one host get that compute on these of its played GPUs."""
    monkeypatch.setattr(nccl, "load_nccl", lambda: make_fake_cupy(num_devices))

    def body(host: Communicator) -> tuple[str, str]:
        host.reason = "as asked"
        communicator = join_gpus(host, devices[host.rank], name)
        return communicator.name, communicator.reason

    return run_ranks(len(devices), body, hosts=["a"] * len(devices))


@pytest.mark.parametrize("devices", [[0, 1], [2, 0, 3]])
def test_join_gpus_of_ranks_with_a_gpu_each_is_nccl_upon_the_host(
    monkeypatch: pytest.MonkeyPatch, devices: list[int | None]
) -> None:
    expected = ("nccl", "as asked; threads for what is on the host")
    assert joined(monkeypatch, devices) == [expected] * len(devices)


@pytest.mark.parametrize(
    ("devices", "num_devices", "reason"),
    [
        (
            [0, 0],
            1,
            "nccl: each rank must have a GPU of its own, got: rank 0 (a) and rank 1 (a) share device"
            " 0000:00:00.0 of a; start fewer ranks a host, or use another communicator",
        ),
        (
            [0, None],
            2,
            "nccl: each rank must compute on a GPU, got: rank 1 (a) has no device; use another communicator",
        ),
    ],
)
def test_join_gpus_of_ranks_that_share_one_or_have_none_stays_at_the_host_and_says_why(
    monkeypatch: pytest.MonkeyPatch, devices: list[int | None], num_devices: int, reason: str
) -> None:
    for name, said in joined(monkeypatch, devices, num_devices=num_devices):
        assert (name, said) == ("threads", f"as asked; {reason}")
    with pytest.raises(LaunchError, match="^nccl: each rank must"):
        joined(monkeypatch, devices, "nccl", num_devices)


def test_join_gpus_without_nccl_stays_at_the_host_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> None:
        raise LaunchError("nccl: cupy must find libnccl.so.2, found none")

    def body(host: Communicator) -> tuple[str, str]:
        host.reason = "as asked"
        return join_gpus(host, host.rank).name, host.reason

    monkeypatch.setattr(nccl, "load_nccl", load)
    said = "as asked; nccl: cupy must find libnccl.so.2, found none"
    assert run_ranks(2, body) == [("threads", said)] * 2


@pytest.mark.parametrize(
    ("devices", "name"),
    [([None, None], None), ([0, 1], "mpi"), ([None, None], "window"), ([0], None)],
    ids=["on CPUs", "by another name", "both", "one rank"],
)
def test_join_gpus_where_nobody_wants_nccl_leaves_the_host(
    monkeypatch: pytest.MonkeyPatch, devices: list[int | None], name: str | None
) -> None:
    assert joined(monkeypatch, devices, name) == [("threads", "as asked")] * len(devices)


@pytest.mark.parametrize("name", BUILT_FOR_GPUS)
@pytest.mark.parametrize("devices", [[2], [0, 1]])
def test_join_gpus_of_ranks_that_ask_for_one_of_gpus_is_that(
    monkeypatch: pytest.MonkeyPatch, devices: list[int | None], name: str
) -> None:
    expected = (name, "as asked; threads for what is on the host")
    assert joined(monkeypatch, devices, name) == [expected] * len(devices)
