"""MPI for real: the suite of test_communicator.py under mpirun, chunks, and launches that cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

SUITE = [Path(__file__).with_name(name) for name in ("test_communicator.py", "test_reduction.py")]

LARGE = """
import os
import numpy as np
from dtrain.dist.create import create_communicator
from dtrain.dist.mpi import CHUNK_BYTES
communicator = create_communicator("mpi", os.environ)
array = np.full(CHUNK_BYTES // 4 * 2 + 3, communicator.rank + 1, np.float32)  # two chunks and a bit
communicator.all_reduce(array)
assert (array == 3).all(), array
communicator.broadcast(array[: CHUNK_BYTES // 4 + 1])
print(communicator.name, communicator.world_size, communicator.topology.local_size)
communicator.close()
"""

# What an mpirun that runs these tests has set, and would draw a program run alone into its job.
LAUNCHERS_PREFIXES = ("OMPI_", "PRTE_", "PMIX_", "PMI_")

ALONE = """
import os
from dtrain.dist.create import create_communicator
from dtrain.dist.errors import LaunchError
try:
    create_communicator(None, os.environ)
except LaunchError as error:
    print(error)
"""


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
def test_communicator_suite_under_mpirun_passes(mpirun: Mpirun, python_of_mpi: str, num_ranks: int) -> None:
    # -s: what a rank prints before it aborts the job would stay in pytest's keeping.
    args = [
        "-m",
        "pytest",
        "-q",
        "-s",
        "--color=no",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        *SUITE,
    ]
    result = mpirun(num_ranks, args, timeout_s=300, python=python_of_mpi)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(" passed") == num_ranks, result.stdout


def test_all_reduce_of_several_chunks_sums_all(mpirun: Mpirun) -> None:
    result = mpirun(2, ["-c", LARGE])
    assert (result.returncode, result.stdout) == (0, "mpi 2 2\n" * 2), result.stderr


def run_alone(program: str, **env: str) -> str:
    """Run `program` as a process that no MPI launcher started, but with `env` set; return its output."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS_PREFIXES)}
    result = subprocess.run(
        [sys.executable, "-c", program], env={**own, **env}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_mpi_under_an_mpirun_of_another_mpi_is_a_launch_error() -> None:
    said = run_alone(ALONE, PMI_RANK="0", PMI_SIZE="2")
    assert said.startswith(
        "MPICH's or Intel MPI's mpirun (hydra) belongs to another MPI than the one loaded: PMI_SIZE"
    )
    assert "says 2 ranks" in said
    assert "loaded by mpi4py sees 1; use " in said


def test_mpi_of_another_size_under_mpirun_is_said_once(mpirun: Mpirun, tmp_path: Path) -> None:
    program = """
import os, sys, time
from dtrain.dist.claim import Claim
from dtrain.dist.create import create_communicator
from dtrain.dist.errors import ClusterError
from dtrain.dist.launch_environment import launch_id
os.environ["OMPI_COMM_WORLD_SIZE"] = "9"
try:
    create_communicator(None, os.environ)
except ClusterError as error:
    if Claim(launch_id(os.environ, os.getppid())).take():
        print(error, file=sys.stderr, flush=True)
    else:
        time.sleep(1)  # the first to exit makes mpirun end the others
    sys.exit(error.exit_code)
"""
    result = mpirun(3, ["-c", program], env={"TMPDIR": str(tmp_path)})
    assert (
        result.stderr.count("OMPI_COMM_WORLD_SIZE must be the number of ranks, 3 as MPI sees it, got 9") == 1
    )
    assert result.returncode == 3


@pytest.mark.parametrize("launched_by", ["OMPI_COMM_WORLD_{}", "PMI_{}"])
def test_mpi_without_mpi4py_is_a_launch_error_with_the_fix(launched_by: str) -> None:
    hide = "import sys; sys.modules['mpi4py'] = None\n"
    said = run_alone(hide + ALONE, **{launched_by.format("RANK"): "0", launched_by.format("SIZE"): "2"})
    assert said.startswith("mpi: mpi4py must be installed for a job of several ranks (")
    assert said.endswith("; pip install 'dtrain[mpi]'\n")


def test_mpi_without_a_library_is_a_launch_error_with_the_fix() -> None:
    said = run_alone(
        ALONE, OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2", MPI4PY_LIBMPI="/nowhere/libmpi.so"
    )
    assert said.startswith("mpi: mpi4py must find an MPI library, got: ")
    assert "/nowhere/libmpi.so" in said
    assert said.endswith("or set MPI4PY_LIBMPI to the path of libmpi.so\n")


def test_mpi_called_after_close_is_a_cluster_error() -> None:
    program = """
import os
from dtrain.dist.create import create_communicator
from dtrain.dist.errors import ClusterError
communicator = create_communicator("mpi", os.environ)
communicator.close()
try:
    communicator.barrier()
except ClusterError as error:
    print(error)
"""
    assert ": barrier: MPI says MPI_ERR_COMM: invalid communicator" in run_alone(program)
