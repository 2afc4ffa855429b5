"""NCCL inside hosts and sums between them, on played GPUs: the suite of device_suite.py on hosts of several sizes.

Ranks are threads, and what MPI does between hosts is played; in the last tests ranks are processes and MPI is real.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pytest

from dtrain.dist import nccl, nccl_hierarchical
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import BFLOAT16, Communicator
from dtrain.dist.errors import ClusterError
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.nccl_hierarchical import NcclHierarchicalCommunicator
from dtrain.dist.reducer import Reducer
from dtrain.dist.reduction import Reduction
from dtrain.dist.threads import run_ranks
from dtrain.dist.wire import Bfloat16Wire
from tests.dist.device_suite import Body, DeviceSuite, OnDevices, filled, summed, uneven
from tests.dist.fake_cupy import make_fake_cupy
from tests.dist.played_sums import Between

T = TypeVar("T")
Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

SMALL_PIECE_BYTES = 2048  # so that the suite's arrays are of more pieces than there is room for
FLOAT32 = np.dtype("float32")
HOSTS = {
    "two of two, in turn": ["a", "b", "a", "b"],
    "two and one": ["a", "a", "b"],
    "two and three": ["a", "b", "b", "a", "b"],
}
TWO_OF_TWO = ["a", "a", "b", "b"]


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the cupy of hosts with four GPUs."""
    cupy = make_fake_cupy(4)
    monkeypatch.setattr(nccl, "load_nccl", lambda: cupy)
    monkeypatch.setattr(nccl_hierarchical, "PIECE_BYTES", SMALL_PIECE_BYTES)
    return cupy


def run(
    hosts: list[str], body: Callable[[NcclHierarchicalCommunicator], T], between: Between | None = None
) -> list[T]:
    """Return what `body` returns on each rank; all that was opened must be closed then."""
    between = between or Between()

    def on_rank(host: Communicator) -> T:
        communicator = NcclHierarchicalCommunicator(host, between=between.make)
        returned = body(communicator)
        communicator.close()
        return returned

    returned = run_ranks(len(hosts), on_rank, hosts=hosts)
    assert between.num_open == 0
    return returned


class TestNcclHierarchical(DeviceSuite):
    @pytest.fixture(params=HOSTS.values(), ids=HOSTS)
    def on_devices(self, request: pytest.FixtureRequest, cupy: Any) -> OnDevices:
        def on_devices(body: Body) -> None:
            run(request.param, lambda communicator: body(communicator, cupy))

        return on_devices


def sum_up(communicator: NcclHierarchicalCommunicator, cupy: Any, size: int, dtype: Any = FLOAT32) -> None:
    """Sum an array and compare with the sums in closed form."""
    array = cupy.asarray(filled((size,), dtype, communicator.rank))
    communicator.all_reduce(array)
    np.testing.assert_array_equal(cupy.asnumpy(array), summed((size,), dtype, communicator.world_size))


@pytest.mark.parametrize(
    ("hosts", "sent"),
    [
        # 1001 numbers of 4 bytes: slices of 500 and 501 where each host has two GPUs, else all of it, or nothing.
        (["a", "a", "b", "b"], [2000, 2004, 2000, 2004]),
        (["a", "a", "a", "b", "b"], [2000, 2004, 0, 2000, 2004]),
        (["a", "a", "b"], [4004, 0, 4004]),
        (["a", "a"], [0, 0]),
    ],
)
@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=str)
def test_between_hosts_each_gpu_takes_a_slice_where_all_hosts_have_as_many(
    cupy: Any, hosts: list[str], sent: list[int], dtype: Any
) -> None:
    between = Between()
    run(hosts, lambda communicator: sum_up(communicator, cupy, 1001, dtype), between)
    assert [sum(between.sent[rank]) for rank in range(len(hosts))] == sent


def test_halves_of_hosts_with_one_gpu_each_travel_as_they_are(cupy: Any) -> None:
    between = Between()
    run(["a", "b"], lambda communicator: sum_up(communicator, cupy, 1001, BFLOAT16), between)
    assert [sum(between.sent[rank]) for rank in range(2)] == [2002, 2002]


def test_halves_between_many_hosts_are_rounded_once_and_floats_left_to_mpi(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nccl_hierarchical, "MOST_SENT_TO_ALL", 2)
    for dtype, num_plain in [(FLOAT32, 3), (BFLOAT16, 0)]:
        between = Between()
        run(["a", "b", "c"], lambda communicator: sum_up(communicator, cupy, 9, dtype), between)  # noqa: B023
        assert between.num_plain == num_plain


def test_test_says_no_until_somebody_waits_where_a_host_has_several_ranks(cupy: Any) -> None:
    def body(communicator: NcclHierarchicalCommunicator) -> bool:
        arrays = [cupy.asarray(np.ones(3, np.float32)) for _ in range(2)]
        reductions = [communicator.start_all_reduce(array) for array in arrays]
        early = reductions[0].test()
        for _ in range(1000):
            early = early or reductions[0].test()
        communicator.barrier()  # which hands out all that is there
        assert [reduction.test() or reduction.wait() for reduction in reductions]
        return early

    assert run(TWO_OF_TWO, body) == [False] * 4


def test_test_says_when_it_is_done_where_each_host_has_one_rank(cupy: Any) -> None:
    def body(communicator: NcclHierarchicalCommunicator) -> list[float]:
        array = cupy.asarray(np.ones(3, np.float32))
        reduction = communicator.start_all_reduce(array)
        while not reduction.test():
            pass
        return cupy.asnumpy(array).tolist()

    assert run(["a", "b"], body) == [[2.0] * 3] * 2


def test_sums_that_come_back_at_other_times_on_each_rank_are_handed_out_in_one_order(cupy: Any) -> None:
    def body(communicator: NcclHierarchicalCommunicator) -> list[float]:
        arrays = [cupy.asarray(np.full(2000, k, np.float32)) for k in range(9)]
        reductions = []
        for k, array in enumerate(arrays):
            reductions.append(communicator.start_all_reduce(array))
            for _ in range(50 * communicator.rank):
                reductions[0].test()
            if k == 4:
                reductions[
                    communicator.rank
                ].wait()  # another one on each rank; the next start waits for the rest
        for reduction in reductions:
            reduction.wait()
        return [float(cupy.asnumpy(array)[1999]) for array in arrays]

    assert run(TWO_OF_TWO, body) == [[4.0 * k for k in range(9)]] * 4


def test_reductions_of_host_and_device_arrays_may_be_under_way_together(cupy: Any) -> None:
    def body(communicator: NcclHierarchicalCommunicator) -> list[float]:
        on_device, on_host = cupy.asarray(np.ones(9, np.float32)), np.ones(9, np.float32)
        reductions = [
            communicator.start_all_reduce(array) for array in (on_device, on_host, on_device, on_host)
        ]
        for k in np.random.default_rng(communicator.rank).permutation(4):
            reductions[k].wait()
        return [float(cupy.asnumpy(on_device)[8]), float(on_host[8])]

    assert run(TWO_OF_TWO, body) == [[16.0, 16.0]] * 4


class Waits(Reduction):
    """Counts how often somebody waits for it."""

    num_waits = 0

    def test(self) -> bool:
        return self.num_waits > 0

    def wait(self) -> None:
        self.num_waits += 1


def test_sum_of_a_device_array_begins_when_those_of_host_arrays_are_done(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(communicator: NcclHierarchicalCommunicator) -> list[int]:
        on_host, counts = Waits(), []
        monkeypatch.setattr(communicator._host, "start_all_reduce", lambda array: on_host)
        communicator.start_all_reduce(np.ones(3, np.float32))
        counts.append(on_host.num_waits)
        communicator.start_all_reduce(cupy.asarray(np.ones(3, np.float32)))
        return [*counts, on_host.num_waits]

    assert run(["a", "b"], body) == [[0, 1]] * 2


def test_barrier_that_waits_for_sums_first_is_the_call_that_is_named_when_it_waits_itself(cupy: Any) -> None:
    activities: dict[int, Activity] = {}

    def body(communicator: NcclHierarchicalCommunicator) -> None:
        activities[communicator.rank] = communicator.activity
        reduction = communicator.start_all_reduce(cupy.asarray(np.ones(3, np.float32)))
        if communicator.rank == 1:
            reduction.wait()
            deadline = time.monotonic() + 30
            while activities[0].collective != "barrier":
                assert time.monotonic() < deadline
                time.sleep(0.001)
        communicator.barrier()

    run(["a", "b"], body)
    assert activities[0].collective == ""


def test_wait_when_nccl_notices_a_failure_is_a_cluster_error_of_that_rank(cupy: Any) -> None:
    between = Between()

    def body(host: Communicator) -> None:
        communicator = NcclHierarchicalCommunicator(host, between=between.make)
        host.barrier()
        if communicator.rank < 3:  # rank 3 does not take part; the others would wait for ever
            reduction = communicator.start_all_reduce(cupy.asarray(np.ones(4, np.float32)))
            communicator._nccl.async_error = cupy.cuda.nccl.NcclError(6)
            for ask in (reduction.wait, reduction.test):
                with pytest.raises(
                    ClusterError, match=rf"^rank {host.rank} \([ab]\): all_reduce: NCCL says that"
                ):
                    ask()
        communicator._nccl.abort()

    run_ranks(4, body, hosts=TWO_OF_TWO)


@pytest.mark.parametrize("wire", [None, Bfloat16Wire()], ids=["float32", "bfloat16"])
def test_reducer_sums_buckets_round_after_round(cupy: Any, wire: Any) -> None:
    buckets = [slice(0, 700), slice(700, 5000), slice(5000, 5003)]

    def body(communicator: NcclHierarchicalCommunicator) -> None:
        arena = cupy.asarray(np.zeros(5003, np.float32))
        reducer = Reducer(communicator, arena, buckets, ["a", "b", "c"], wire)
        for _ in range(3):
            arena[...] = filled((5003,), FLOAT32, communicator.rank)
            for end in (1, 2):
                reducer.start_to(end)
                reducer.move_on()
            for k in reducer.complete():
                expected = summed((5003,), FLOAT32, communicator.world_size)
                np.testing.assert_array_equal(cupy.asnumpy(arena)[buckets[k]], expected[buckets[k]])

    run(["a", "a", "b"], body)


def test_halves_are_summed_in_float32_over_all_hosts(cupy: Any) -> None:
    def body(communicator: NcclHierarchicalCommunicator) -> bytes:
        array = cupy.asarray(uneven(communicator.rank, 3001, BFLOAT16))
        communicator.all_reduce(array)
        return cupy.asnumpy(array).tobytes()

    parts = [uneven(rank, 3001, BFLOAT16).astype(np.float32) for rank in range(4)]
    expected = ((parts[1] + parts[0]) + (parts[3] + parts[2])).astype(
        BFLOAT16
    )  # two of a host in either order
    assert run(TWO_OF_TWO, body) == [expected.tobytes()] * 4


def test_host_that_waits_for_something_else_on_the_gpu_lets_sums_move_on(cupy: Any) -> None:
    has_sums = threading.Event()

    def body(communicator: NcclHierarchicalCommunicator) -> None:
        # More pieces than there is room for: rank 1's sums need rank 0 again and again.
        reduction = communicator.start_all_reduce(cupy.asarray(np.ones(100_000, np.float32)))
        if communicator.rank == 0:
            deadline = time.monotonic() + 30
            communicator.wait_for(lambda: has_sums.is_set() or time.monotonic() > deadline)
            assert has_sums.is_set()
        reduction.wait()
        has_sums.set()

    run(["a", "b"], body)


def made(kind: type[NcclCommunicator]) -> Callable[[Communicator], str]:
    """Return what gives the error of making a communicator of this kind."""

    def body(host: Communicator) -> str:
        with pytest.raises(ClusterError) as caught:
            kind(host)
        return str(caught.value)

    return body


@pytest.mark.parametrize("hosts", [["a", "b"], ["a", "a"]])
def test_nccl_that_cannot_be_made_names_this_one_where_it_goes_between_hosts(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, hosts: list[str]
) -> None:
    def fail(*_: Any) -> None:
        raise cupy.cuda.nccl.NcclError(2)

    monkeypatch.setattr(cupy.cuda.nccl, "NcclCommunicator", fail)
    fix = "; --communicator nccl-hierarchical keeps NCCL inside hosts"
    for kind, is_named in [(NcclCommunicator, hosts == ["a", "b"]), (NcclHierarchicalCommunicator, False)]:
        for said in run_ranks(2, made(kind), hosts=hosts):
            assert "making NCCL's communicator: NCCL says that a call of the operating system failed" in said
            assert said.endswith(fix) == is_named


PROGRAM = """
import os, sys
import numpy as np
from dtrain.dist import nccl, nccl_hierarchical
from dtrain.dist.failure import end_job_on_failure
from dtrain.dist.launch_environment import launched_rank
from dtrain.dist.mpi import MpiCommunicator, load_mpi
from dtrain.dist.nccl_hierarchical import NcclHierarchicalCommunicator
from tests.dist.fake_cupy import make_fake_cupy
from tests.played import nccl as played_nccl

RANK = launched_rank(os.environ)
OF_HOST = load_mpi().COMM_WORLD.Split(RANK // 2, RANK)

class MeetingOfProcesses:
    def __init__(self, num_ranks):
        assert num_ranks == OF_HOST.Get_size()
    def swap(self, rank, call, value):
        calls, values = zip(*OF_HOST.allgather((call, value)))
        assert len(set(calls)) == 1, calls
        return values
    def break_up(self, reason):
        pass

played_nccl.Meeting = MeetingOfProcesses
CUPY = make_fake_cupy(2)
nccl.load_nccl = lambda: CUPY
nccl_hierarchical.PIECE_BYTES = 2**16
communicator = NcclHierarchicalCommunicator(MpiCommunicator(f"host{RANK // 2}"))

def sum_up(dtype):
    n = communicator.world_size
    arrays = [CUPY.asarray((np.arange(300_001 - k) % 100 + RANK).astype(dtype)) for k in range(5)]
    reductions = [communicator.start_all_reduce(array) for array in arrays]
    for array, reduction in zip(arrays, reductions):
        reduction.wait()
        expected = np.arange(array.size) % 100 * n + n * (n - 1) // 2
        np.testing.assert_array_equal(CUPY.asnumpy(array), expected.astype(dtype))
"""


@pytest.mark.parametrize("num_ranks", [3, 4])
def test_ranks_that_are_processes_are_summed_by_mpi_between_hosts(
    mpirun: Mpirun, python_of_mpi: str, num_ranks: int
) -> None:
    program = """
for dtype in ("float32", "float16"):
    sum_up(dtype)
communicator.ordered_sums = True
sum_up("float32")
communicator.close()
os.write(1, b"summed\\n")
"""
    result = mpirun(num_ranks, ["-c", PROGRAM + program], python=python_of_mpi)
    assert (result.returncode, result.stdout, result.stderr) == (0, "summed\n" * num_ranks, "")


def test_rank_that_fails_ends_all_who_wait_for_its_sums(mpirun: Mpirun, python_of_mpi: str) -> None:
    program = """
with end_job_on_failure(communicator, communicator.activity, lambda line: print(line, file=sys.stderr, flush=True)):
    if RANK == 3:
        communicator.start_all_reduce(CUPY.asarray(np.ones(9, np.float32)))
        raise ValueError("no more")
    sum_up("float32")
"""
    result = mpirun(4, ["-c", PROGRAM + program], python=python_of_mpi, timeout_s=30)
    assert result.returncode == 3
    line = "rank 3 of 4 (host1) failed before the first iteration while starting: ValueError: no more"
    assert line in result.stderr
