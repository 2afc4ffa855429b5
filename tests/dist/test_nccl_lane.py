"""The lane: work behind the caller's and before what the caller's stream is given next, and no wait on the host."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np
import pytest

from dtrain.dist.nccl_lane import Lane
from tests.dist.fake_cupy import make_fake_cupy
from tests.played.cuda import Cuda
from tests.played.cupy import PlayedCupy
from tests.played.graphs import CudaError, record
from tests.played.host_traffic import forbid_host


def test_run_comes_after_what_the_callers_stream_was_given_and_wait_before_what_it_is_given_next() -> None:
    cupy = make_fake_cupy(1)
    lane, current, order = Lane(cupy), cupy.cuda.get_current_stream(), []
    may_go = threading.Event()
    current.give(lambda: (may_go.wait(30), order.append("before")))
    transfer = lane.run(lambda: lane.stream.give(lambda: order.append("inside")), np.zeros(1))
    transfer.wait()
    current.give(lambda: order.append("after"))
    assert (order, transfer.is_over(), lane.end()()) == ([], False, False)  # and the host is here already
    may_go.set()
    current.synchronize()
    assert order == ["before", "inside", "after"]
    assert transfer.is_over()


def test_test_of_a_transfer_says_whether_it_is_over_or_awaited() -> None:
    cupy = make_fake_cupy(1)
    lane, may_go = Lane(cupy), threading.Event()
    transfers = [
        lane.run(lambda: lane.stream.give(lambda: may_go.wait(30) or None), np.zeros(1)) for _ in range(2)
    ]
    assert [transfer.test() for transfer in transfers] == [False, False]
    transfers[1].wait()
    assert [transfer.test() for transfer in transfers] == [False, True]
    may_go.set()
    lane.stream.synchronize()
    assert [transfer.test() for transfer in transfers] == [True, True]


def test_lane_keeps_arrays_until_their_transfers_are_over() -> None:
    class Held:
        pass

    cupy = make_fake_cupy(1)
    lane, may_go, array = Lane(cupy), threading.Event(), Held()
    kept = weakref.ref(array)
    lane.run(lambda: lane.stream.give(lambda: may_go.wait(30) or None), array)
    del array
    assert kept() is not None
    may_go.set()
    lane.stream.synchronize()
    lane.run(lambda: None, None)
    assert kept() is None


def test_transfer_of_a_gpu_that_has_failed_raises_instead_of_going_on_for_ever() -> None:
    cupy = make_fake_cupy(1)
    transfer = Lane(cupy).run(lambda: None, None)
    transfer._event.failure = 700
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="700"):
        transfer.is_over()


@pytest.fixture
def cupy() -> Any:
    """Return a played cupy whose streams capture."""
    played = PlayedCupy("cupy")
    played.cuda = Cuda(1)
    return played


def test_run_in_a_capture_is_part_of_the_graph_and_asks_nothing(cupy: Any) -> None:
    lane, stream, launches = Lane(cupy), cupy.cuda.Stream(non_blocking=True), []
    lane.run(lambda: None, None)  # under way as far as the lane knows
    with stream:
        stream.begin_capture()
        with forbid_host():
            transfer = lane.run(lambda: record(lambda: launches.append(1)), None)
            assert not transfer.test()
            transfer.wait()
            assert transfer.test()
        graph = stream.end_capture()
    assert (lane.has_captured, transfer.is_captured, launches) == (True, True, [])
    graph.launch()
    graph.launch()
    assert launches == [1, 1]
    assert not lane.run(lambda: None, None).is_captured


def test_run_in_a_capture_without_a_wait_is_cudas_error(cupy: Any) -> None:
    lane, stream = Lane(cupy), cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        lane.run(lambda: None, None)
        with pytest.raises(CudaError, match="Unjoined"):
            stream.end_capture()
