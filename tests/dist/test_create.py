from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from dtrain.dist.create import (
    BUILT_UPON_MPI,
    COMMUNICATORS,
    choose,
    create_communicator,
    is_alone,
    ranks_and_hosts,
)
from dtrain.dist.errors import LaunchError
from dtrain.dist.hierarchical import HierarchicalCommunicator
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.topology import topology_from_hosts
from dtrain.dist.window import WindowCommunicator

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
        match='^communicator: unknown name "carrier pigeon"; known: hierarchical, mpi, nccl, single, window$',
    ):
        create_communicator("carrier pigeon", {})


def test_communicators_table_has_each_under_its_own_name() -> None:
    kinds = (
        *(SingleCommunicator, MpiCommunicator, WindowCommunicator, HierarchicalCommunicator),
        NcclCommunicator,
    )
    assert set(COMMUNICATORS) == {kind.name for kind in kinds}
    assert {kind.name: kind for kind in kinds[2:4]} == BUILT_UPON_MPI


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
