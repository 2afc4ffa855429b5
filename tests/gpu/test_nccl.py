"""NCCL for real: the suite of tests/dist/device_suite.py on one GPU a rank, graphs, and ends of all kinds.

One rank needs no MPI; what needs more runs under mpirun, where there are as many GPUs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.dist.create import create_communicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.wire import Bfloat16Wire, Float16Wire, Wire
from tests.dist.device_suite import FLOATS, Body, DeviceSuite, OnDevices, check_capture

Mpirun = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 120

# Under mpirun (a test below starts it) this process is one rank.
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
# A rank that has captured a call, and still has the graph when its action comes.
CAPTURED = """
import sys, threading
import numpy as np
from dtrain.dist.cupy_library import load_nccl
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.single import SingleCommunicator
cupy = load_nccl()
communicator = NcclCommunicator(SingleCommunicator())
array = cupy.ones(1000, np.float32)
communicator.all_reduce(array)
with cupy.cuda.Stream(non_blocking=True) as stream:
    stream.begin_capture()
    communicator.all_reduce(array)
    graph = stream.end_capture()
graph.launch()
print(float(array.sum()), flush=True)
"""


@pytest.fixture(scope="session")
def communicator(gpus: int) -> Iterator[NcclCommunicator]:
    assert gpus
    host = create_communicator("mpi", os.environ) if UNDER_MPIRUN else SingleCommunicator()
    made = NcclCommunicator(host)
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
                if UNDER_MPIRUN:
                    traceback.print_exc()  # the other ranks would wait in the next collective call
                    communicator.abort(1)
                raise

        return run

    @pytest.mark.parametrize("ordered_sums", [False, True])
    @pytest.mark.parametrize("dtype", FLOATS, ids=str)
    def test_calls_of_a_captured_stream_happen_at_each_launch_with_the_bits_of_eager_ones(
        self, on_devices: OnDevices, dtype: np.dtype[Any], ordered_sums: bool
    ) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            communicator.ordered_sums = ordered_sums
            check_capture(communicator, cupy, dtype)

        on_devices(body)

    @pytest.mark.parametrize("wire", [Bfloat16Wire(), Float16Wire(1)], ids=["bfloat16", "float16"])
    def test_wire_on_a_gpu_has_the_bits_of_the_hosts(self, on_devices: OnDevices, wire: Wire) -> None:
        def body(communicator: NcclCommunicator, cupy: Any) -> None:
            values = np.random.default_rng(3).standard_normal(100_003).astype(np.float32) * 100
            travelling, back = cupy.zeros(values.size, wire.dtype), cupy.zeros(values.size, np.float32)
            wire.compress(0, cupy.asarray(values), travelling)
            wire.decompress(0, travelling, back)
            expected = values.astype(wire.dtype)
            assert cupy.asnumpy(travelling).tobytes() == expected.tobytes()
            assert (cupy.asnumpy(back) == expected.astype(np.float32)).all()

        on_devices(body)


if not UNDER_MPIRUN:

    @pytest.mark.parametrize("num_ranks", [2, 3, 4, 8])
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

    @pytest.mark.parametrize(
        ("action", "exit_code"),
        [
            ("communicator.close()", 0),
            ("communicator.abort(3)", 3),
            (
                "threading.Timer(0.1, communicator.abort, (3,)).start(); communicator.wait_for(lambda: False)",
                3,
            ),
            ("sys.exit(5)", 5),
        ],
    )
    def test_end_of_a_rank_that_still_has_a_graph_of_nccls_calls_comes(
        num_gpus: int, action: str, exit_code: int
    ) -> None:
        done = subprocess.run(
            [sys.executable, "-c", CAPTURED + action],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert (done.stdout, done.returncode) == ("1000.0\n", exit_code), done.stderr
