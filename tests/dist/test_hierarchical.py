"""The calls are in test_communicator.py and test_reduction.py, on hosts of one to three ranks; here is what crosses
from host to host, and what happens if a host cannot take part."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = """
import os
import numpy as np
from dtrain.dist.errors import LaunchError
from dtrain.dist.hierarchical import HierarchicalCommunicator, WindowInside
from dtrain.dist.launch_environment import launched_rank
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.window_memory import WindowError
RANK = launched_rank(os.environ)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once, or lines of two ranks get mixed
"""


def run(mpirun: Mpirun, python: str, num_ranks: int, program: str) -> list[str]:
    """Run `program` on each rank; return the lines that they print, sorted."""
    result = mpirun(num_ranks, ["-c", HEAD + program], python=python)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return sorted(result.stdout.splitlines())


def test_inside_is_a_parameter_and_only_its_leaders_meet_between_hosts(
    mpirun: Mpirun, python_of_mpi: str
) -> None:
    program = """
class Inside(WindowInside):
    def __init__(self, mpi, comm):
        super().__init__(mpi, comm)
        say("rank", RANK, "is", comm.Get_rank(), "of", comm.Get_size())
communicator = HierarchicalCommunicator(MpiCommunicator("a" if RANK in (0, 2) else "b"), Inside)
say("rank", RANK, "leads" if communicator._between else "follows")
array = np.full(10, RANK, np.float32)
communicator.all_reduce(array)
assert (array == 3).all()
communicator.close()
"""
    assert run(mpirun, python_of_mpi, 3, program) == [
        "rank 0 is 0 of 2",
        "rank 0 leads",
        "rank 1 is 0 of 1",
        "rank 1 leads",
        "rank 2 follows",
        "rank 2 is 1 of 2",
    ]


def test_host_without_common_memory_is_a_launch_error_on_all_ranks(
    mpirun: Mpirun, python_of_mpi: str
) -> None:
    program = """
def inside(mpi, comm):
    if RANK:
        raise WindowError("there is no room")
    return WindowInside(mpi, comm)
try:
    HierarchicalCommunicator(MpiCommunicator(f"host{RANK}"), inside)
except LaunchError as error:
    say(error)
"""
    problems = "host1: there is no room; host2: there is no room"
    expected = f"communicator: hierarchical must have common memory, got: {problems}; use mpi"
    assert run(mpirun, python_of_mpi, 3, program) == [expected] * 3


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_large_arrays_of_several_chunks_are_summed(mpirun: Mpirun, python_of_mpi: str, dtype: str) -> None:
    program = f"""
communicator = HierarchicalCommunicator(MpiCommunicator(f"host{{RANK // 2}}"))
dtype = np.dtype("{dtype}")
arena = communicator.allocate(3_000_001, dtype)
for array in (arena, np.empty(3_000_001, dtype)):
    array[...] = np.arange(array.size) % 100 + RANK
    reduction = communicator.start_all_reduce(array)
    reduction.wait()
    np.testing.assert_array_equal(array, (np.arange(array.size) % 100 * 3 + 3).astype(dtype))
communicator.close()
say("summed")
"""
    assert run(mpirun, python_of_mpi, 3, program) == ["summed"] * 3
