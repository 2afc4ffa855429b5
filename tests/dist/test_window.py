"""The calls are in test_communicator.py and test_reduction.py; here is what else may become of common memory."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

HEAD = """
import logging, os, resource, sys
import numpy as np
from dtrain.dist.create import create_communicator
from dtrain.dist.errors import LaunchError
from dtrain.dist.mpi import MpiCommunicator
from dtrain.dist.window import Fence, WindowCommunicator
FLOAT32 = np.dtype(np.float32)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # at once, or lines of two ranks get mixed
"""


def run(mpirun: Mpirun, python: str, num_ranks: int, program: str, **env: str) -> list[str]:
    """Run `program` on each rank; return the lines that they print, sorted."""
    result = mpirun(num_ranks, ["-c", HEAD + program], python=python, env=env)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr
    return sorted(result.stdout.splitlines())


def test_arena_outlives_its_communicator_and_the_process_ends_in_order(
    mpirun: Mpirun, python_of_mpi: str
) -> None:
    program = """
communicator = create_communicator("window", os.environ)
arena = communicator.allocate(100_000, FLOAT32)
inside = arena[5:50_000]
arena[...] = 1
communicator.all_reduce(arena)
communicator.close()
del communicator, arena
inside += 1
say(inside.sum() == 3 * inside.size)
"""
    assert run(mpirun, python_of_mpi, 2, program) == ["True"] * 2


def test_process_that_never_closes_its_communicator_ends_in_order(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = """
communicator = create_communicator("window", os.environ)
arena = communicator.allocate(100_000, FLOAT32)
communicator.start_all_reduce(arena).wait()
say("end")
"""
    assert run(mpirun, python_of_mpi, 2, program) == ["end"] * 2


# A file, and so common memory, may have no more than a megabyte; a channel alone has more. MPI, which has files of
# its own, starts before.
SMALL_MEMORY = """
MpiCommunicator().barrier()
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
"""


def test_too_little_memory_falls_back_to_mpi_with_the_reason(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = (
        SMALL_MEMORY
        + """
communicator = create_communicator(None, os.environ)
array = np.ones(10, np.float32)
communicator.all_reduce(array)
say(communicator.name, array[0], communicator.reason)
communicator.close()
"""
    )
    first, second = run(mpirun, python_of_mpi, 2, program)
    assert first == second
    assert first.startswith(
        "mpi 2.0 2 ranks on one host; communicator: window must have common memory, got: rank 0"
    )
    assert first.endswith("File too large; use mpi")


def test_too_little_memory_asked_for_by_name_is_a_launch_error(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = (
        SMALL_MEMORY
        + """
try:
    create_communicator(sys.argv[1], os.environ)
except LaunchError as error:
    say(error)
"""
    )
    for name in ("window", "hierarchical"):
        lines = run(mpirun, python_of_mpi, 2, program.replace("sys.argv[1]", repr(name)))
        for line in lines:
            assert line.startswith(f"communicator: {name} must have common memory, got: ")
            assert line.endswith("; use mpi")


def test_arena_without_room_is_plain_memory_with_a_warning(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = """
logging.basicConfig(stream=sys.stdout, format="%(message)s")
communicator = create_communicator("window", os.environ)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))
arena = communicator.allocate(10**6, FLOAT32)
arena[...] = 1
communicator.all_reduce(arena)
say("sum", (arena == 2).all())
communicator.close()
"""
    first, second, warning = run(mpirun, python_of_mpi, 2, program)
    assert (first, second) == ("sum True", "sum True")
    assert warning.startswith("window: rank 0 of the host cannot have ")
    assert warning.endswith("; taking plain memory, whose sums take longer")


def test_window_on_several_hosts_is_a_launch_error(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = """
base = MpiCommunicator(f"host{MpiCommunicator().rank}")
try:
    WindowCommunicator(base)
except LaunchError as error:
    say(error)
"""
    expected = "communicator: window must have all ranks on one host, got 2 hosts; use hierarchical or mpi"
    assert run(mpirun, python_of_mpi, 2, program) == [expected] * 2


def test_fence_can_be_called_and_closed(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = """
base = MpiCommunicator()
fence = Fence(base.mpi)
fence()
fence.close()
say("fenced")
"""
    # Open MPI says of its UCX that it is none where there is no fabric.
    assert run(mpirun, python_of_mpi, 2, program, OMPI_MCA_osc="^ucx") == ["fenced"] * 2


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_window_sums_large_arrays_in_and_outside_of_arenas(
    mpirun: Mpirun, python_of_mpi: str, num_ranks: int
) -> None:
    program = """
communicator = create_communicator("window", os.environ)
arena = communicator.allocate(3_000_001, FLOAT32)
for array in (arena, arena[7:], np.empty(3_000_001, FLOAT32)):
    array[...] = np.arange(array.size) % 1000 + communicator.rank
    communicator.all_reduce(array)
    size = communicator.world_size
    np.testing.assert_array_equal(array, np.arange(array.size) % 1000 * size + size * (size - 1) // 2)
communicator.close()
say("summed")
"""
    assert run(mpirun, python_of_mpi, num_ranks, program) == ["summed"] * num_ranks
