"""The calls are in test_communicator.py; here is how ranks as threads start, fail and end."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import ClusterError
from dtrain.dist.threads import JobAborted, run_ranks


def test_run_ranks_returns_results_in_rank_order() -> None:
    assert run_ranks(4, lambda communicator: communicator.rank * 10) == [0, 10, 20, 30]


def test_run_ranks_on_named_hosts_gives_their_topology() -> None:
    nodes = run_ranks(3, lambda communicator: communicator.topology.node_rank, hosts=["a", "b", "a"])
    assert nodes == [0, 1, 0]


def test_run_ranks_with_one_failing_releases_and_raises_its_exception() -> None:
    released: list[str] = []

    def body(communicator: Communicator) -> None:
        if communicator.rank == 1:
            raise ZeroDivisionError("rank 1's own")
        try:
            communicator.barrier()
        except ClusterError as error:
            released.append(str(error))
            raise

    with pytest.raises(ZeroDivisionError, match="rank 1's own"):
        run_ranks(3, body)
    assert released == ["rank 1 failed: ZeroDivisionError: rank 1's own"] * 2


@pytest.mark.parametrize("exception", [SystemExit(0), KeyboardInterrupt()], ids=repr)
def test_run_ranks_with_one_leaving_by_other_ways_raises_that(exception: BaseException) -> None:
    def body(communicator: Communicator) -> None:
        if communicator.rank == 0:
            raise exception
        communicator.barrier()

    with pytest.raises(type(exception)):
        run_ranks(2, body)


def test_run_ranks_with_one_returning_early_raises() -> None:
    def body(communicator: Communicator) -> None:
        if communicator.rank != 1:
            communicator.barrier()

    with pytest.raises(ClusterError, match="rank 1 has ended, rank [02] calls barrier"):
        run_ranks(3, body)


def test_run_ranks_with_differing_shapes_raises() -> None:
    def body(communicator: Communicator) -> None:
        communicator.all_reduce(np.zeros(3 + communicator.rank, np.float32))

    with pytest.raises(
        ClusterError, match=r"rank 0 calls all_reduce\(float32\[3\]\), rank 1 calls .*\[4\]\)"
    ):
        run_ranks(2, body)


def test_run_ranks_with_differing_roots_raises() -> None:
    def body(communicator: Communicator) -> None:
        communicator.broadcast(np.zeros(3, np.float32), root=communicator.rank)

    with pytest.raises(ClusterError, match="root=0.*root=1"):
        run_ranks(2, body)


def test_run_ranks_that_never_end_raises_at_the_time_limit() -> None:
    stop = threading.Event()

    def body(communicator: Communicator) -> None:
        if communicator.rank == 0:
            stop.wait()
        communicator.barrier()

    with pytest.raises(
        ClusterError, match=r"^rank-0, rank-1 did not end within 0.2 s \(rank 1 waits in barrier\)$"
    ):
        run_ranks(2, body, timeout_s=0.2)
    stop.set()


def test_threads_abort_ends_all_ranks_and_carries_the_code() -> None:
    def body(communicator: Communicator) -> None:
        if communicator.rank == 1:
            communicator.abort(3)
        communicator.barrier()

    with pytest.raises(JobAborted, match="rank 1 aborted the job with exit code 3") as raised:
        run_ranks(2, body)
    assert raised.value.exit_code == 3


def test_threads_all_reduce_sums_in_rank_order() -> None:
    # In float32, (1e8 + 1) - 1e8 = 0 and (1e8 - 1e8) + 1 = 1: only the order tells them apart.
    values = [1e8, -1e8, 1.0]

    def body(communicator: Communicator) -> float:
        array = np.array([values[communicator.rank]], np.float32)
        communicator.all_reduce(array)
        return float(array[0])

    assert run_ranks(3, body) == [1.0, 1.0, 1.0]
