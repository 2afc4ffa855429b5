from __future__ import annotations

import subprocess
import sys

import pytest

from dtrain.dist.create import COMMUNICATORS, create_communicator, default_name
from dtrain.dist.errors import LaunchError
from dtrain.dist.single import SingleCommunicator

TABLE = {
    "not launched": ({}, "single"),
    "mpirun -n 1": ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, "single"),
    "mpirun -n 2": ({"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, "mpi"),
    "prterun, which does not tell the size": ({"PMIX_RANK": "0"}, "mpi"),
}


@pytest.mark.parametrize(("env", "name"), TABLE.values(), ids=TABLE)
def test_default_name_table(env: dict[str, str], name: str) -> None:
    assert default_name(env) == name


def test_create_communicator_by_name_overrides_the_environment() -> None:
    env, _ = TABLE["mpirun -n 2"]
    assert isinstance(create_communicator("single", env), SingleCommunicator)


def test_create_communicator_of_unknown_name_lists_the_known() -> None:
    with pytest.raises(
        LaunchError, match='^communicator: unknown name "carrier pigeon"; known: .*mpi.*single'
    ):
        create_communicator("carrier pigeon", {})


def test_communicators_table_has_each_under_its_own_name() -> None:
    assert {name: getattr(kind, "name", None) for name, kind in COMMUNICATORS.items()} == {
        "mpi": "mpi",
        "single": "single",
    }


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
