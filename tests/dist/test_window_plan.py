from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from dtrain.dist import window_plan
from dtrain.dist.communicator import DTYPES
from dtrain.dist.window_memory import WindowMemory
from dtrain.dist.window_plan import Plan, plan_of
from tests.dist.host_of_threads import ThreadsComm, run_on_host


def test_plan_of_an_array_in_no_arena_is_none() -> None:
    def body(comm: ThreadsComm) -> None:
        arena = WindowMemory(comm, 400)
        assert plan_of(np.zeros(10), [], comm.Get_rank()) is None
        assert plan_of(np.zeros(10), [arena], comm.Get_rank()) is None

    run_on_host(2, body)


def test_place_tells_arenas_and_where_in_them_apart_alike_on_all_ranks() -> None:
    def body(comm: ThreadsComm) -> list[int]:
        arenas = [WindowMemory(comm, 400) for _ in range(2)]
        first, second = (each.take().view(np.float32) for each in arenas)
        arrays = [first, first[3:], second, second[3:].reshape(1, 97)]
        plans = [plan_of(array, arenas, comm.Get_rank()) for array in arrays]
        return [plan.place for plan in plans if plan is not None]

    places, others = run_on_host(2, body)
    assert places == others
    assert len(set(places)) == 4


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_plan_is_kept_for_each_address_size_and_dtype(dtype: np.dtype[Any]) -> None:
    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 4000)]
        values = arenas[0].take().view(dtype)

        def plan(array: np.ndarray[Any, Any]) -> Plan:
            found = plan_of(array, arenas, comm.Get_rank())
            assert found is not None
            return found

        kept = plan(values[8:50])
        assert kept.rows.shape == (2, 42)
        assert kept.rows.dtype == dtype
        assert plan(values[8:50]) is kept
        assert plan(values[8:50].reshape(6, 7)) is kept
        for other in (values[8:49], values[9:51], values[8:50].view(np.int16)):
            assert plan(other) is not kept
            assert plan(other).rows.shape == (2, other.size)

    run_on_host(2, body)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 100])
def test_sum_slice_of_all_ranks_gives_all_the_sum(
    monkeypatch: pytest.MonkeyPatch, num_ranks: int, size: int
) -> None:
    monkeypatch.setattr(window_plan, "BLOCK_BYTES", 64)  # of 16 elements

    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 4 * size)]
        values = arenas[0].take().view(np.float32)
        values[...] = np.arange(size) + comm.Get_rank()
        comm.allgather("all have written")
        plan = plan_of(values, arenas, comm.Get_rank())
        assert plan is not None
        plan.sum_slice(to_all=True)
        comm.allgather("all have summed")
        np.testing.assert_array_equal(values, np.arange(size) * num_ranks + num_ranks * (num_ranks - 1) // 2)

    run_on_host(num_ranks, body)


def test_sum_slice_for_one_leaves_the_arrays_of_others() -> None:
    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 400)]
        values = arenas[0].take().view(np.float32)
        values[...] = comm.Get_rank() + 1
        comm.allgather("all have written")
        plan = plan_of(values, arenas, comm.Get_rank())
        assert plan is not None
        plan.sum_slice(to_all=False)
        comm.allgather("all have summed")
        assert (values == (3 if comm.Get_rank() == 0 else 2)).all()

    run_on_host(2, body)


def test_plans_are_gone_with_their_arena_and_do_not_keep_it() -> None:
    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 400)]
        values = arenas[0].take().view(np.float32)
        plan = plan_of(values, arenas, comm.Get_rank())
        assert plan is not None
        gone = weakref.ref(plan)
        del plan
        assert gone() is not None
        del values
        gc.collect()
        assert gone() is None

    run_on_host(2, body)


def test_no_more_plans_are_kept_than_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_plan, "MOST_PLANS", 5)

    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 400)]
        values = arenas[0].take().view(np.float32)
        for start in range(12):
            plan_of(values[start:], arenas, comm.Get_rank())
            assert len(arenas[0].kept) == start % 5 + 1

    run_on_host(2, body)
