"""NCCL for real: the suite of tests/dist/device_suite.py on one GPU a rank, and two ranks on one GPU."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dtrain.dist.create import create_communicator
from dtrain.dist.nccl import NcclCommunicator
from tests.dist.device_suite import Body, DeviceSuite, OnDevices

Mpirun = Callable[..., Any]

# Under mpirun (the first test below starts it) this process is one rank.
UNDER_MPIRUN = "OMPI_COMM_WORLD_SIZE" in os.environ or "PMI_SIZE" in os.environ

SHARING = """
import os
from dtrain.dist.create import create_communicator
from dtrain.dist.errors import LaunchError
from dtrain.dist.nccl import NcclCommunicator
host = create_communicator("mpi", os.environ)
try:
    NcclCommunicator(host)
except LaunchError as error:
    print(error)
host.close()
"""

if UNDER_MPIRUN:

    @pytest.fixture(scope="session")
    def communicator() -> Iterator[NcclCommunicator]:
        made = NcclCommunicator(create_communicator("mpi", os.environ))
        yield made
        made.close()

    class TestNccl(DeviceSuite):
        @pytest.fixture
        def on_devices(self, communicator: NcclCommunicator, cupy: Any) -> OnDevices:
            communicator.ordered_sums = False

            def run(body: Body) -> None:
                try:
                    body(communicator, cupy)
                except BaseException:
                    traceback.print_exc()  # the other ranks would wait in the next collective call
                    communicator.abort(1)

            return run

else:

    @pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 8])
    def test_device_suite_with_a_gpu_for_each_rank_passes(
        mpirun: Mpirun, num_gpus: int, num_ranks: int
    ) -> None:
        if num_gpus < num_ranks:
            pytest.skip(f"{num_ranks} ranks need as many GPUs, got {num_gpus}")
        args = ["-m", "pytest", "-q", "--color=no", "-p", "no:cacheprovider", Path(__file__)]
        result = mpirun(num_ranks, args, timeout_s=300)
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stdout.count(" passed") == num_ranks, result.stdout

    def test_nccl_of_two_ranks_on_one_gpu_is_refused_on_both(mpirun: Mpirun, num_gpus: int) -> None:
        result = mpirun(2, ["-c", SHARING], env={"CUDA_VISIBLE_DEVICES": "0"})
        assert result.stdout.count("nccl: each rank must have a GPU of its own, got: rank 0") == 2, result
