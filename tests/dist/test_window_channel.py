"""The sums are in test_communicator.py and test_reduction.py, over window.py; here is what only hierarchical.py
takes from a channel, and that nothing is written while others may read it."""

from __future__ import annotations

import os
import random
import threading

import numpy as np
import pytest

from dtrain.dist import window_channel
from dtrain.dist.communicator import Array
from dtrain.dist.waiting import Steps
from dtrain.dist.window_channel import WindowChannel
from dtrain.dist.window_memory import WindowMemory
from tests.dist.host_of_threads import ThreadsComm, run_on_host

SIZES = [0, 1, 60, 500, 900, 5003]  # of float32: a slot has 64, a buffer 512 (see small_parts)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window_channel, "SLOT_BYTES", 256)
    monkeypatch.setattr(window_channel, "BUFFER_BYTES", 2048)


def make_channel(comm: ThreadsComm, arenas: list[WindowMemory]) -> tuple[WindowChannel, Array]:
    memory = WindowMemory(comm, window_channel.PART_BYTES)
    kept = memory.take()
    return WindowChannel(comm.Get_rank(), memory.parts(), arenas, lambda: None), kept


def go(steps: Steps) -> None:
    for _ in steps:
        threading.Event().wait(1e-5)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("in_arena", [False, True])
def test_reduce_then_broadcast_gives_all_ranks_the_sum(num_ranks: int, in_arena: bool) -> None:
    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 4 * max(SIZES))]
        arena = arenas[0].take().view(np.float32)
        channel, _kept = make_channel(comm, arenas)
        for size in SIZES:
            array = arena[:size] if in_arena else np.empty(size, np.float32)
            array[...] = np.arange(size) + comm.Get_rank()
            go(channel.reduce(array))
            expected = num_ranks * np.arange(size) + num_ranks * (num_ranks - 1) // 2
            if comm.Get_rank() == 0:
                np.testing.assert_array_equal(array, expected)
            go(channel.broadcast(array, 0))
            np.testing.assert_array_equal(array, expected)

    run_on_host(num_ranks, body)


def test_exchanges_in_a_row_at_differing_speeds_give_each_its_sum() -> None:
    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 4 * max(SIZES))]
        arena = arenas[0].take().view(np.float32)
        channel, _kept = make_channel(comm, arenas)
        alike, own = random.Random(1), random.Random(2 + comm.Get_rank())
        for turn in range(150):
            size, root = alike.choice(SIZES), alike.randrange(3)
            array = alike.choice([arena[:size], np.empty(size, np.float32)])
            array[...] = turn + comm.Get_rank()
            if own.random() < 0.1:
                threading.Event().wait(1e-3)
            if alike.random() < 0.5:
                go(channel.all_reduce(array))
                assert (array == 3 * turn + 3).all()
            else:
                go(channel.broadcast(array, root))
                assert (array == turn + root).all()

    run_on_host(3, body)


@pytest.mark.parametrize("size", [60, 500])
def test_array_that_lies_in_an_arena_on_some_ranks_only_is_summed_all_the_same(size: int) -> None:
    def body(comm: ThreadsComm) -> None:
        rank = comm.Get_rank()
        arenas = [WindowMemory(comm, 4 * max(SIZES)) for _ in range(2)]
        first, second = [each.take().view(np.float32) for each in arenas]
        channel, _kept = make_channel(comm, arenas)
        plain = np.empty(size, np.float32)
        elsewhere = {
            "some in none": first[:size] if rank else plain,
            "in another": (first if rank else second)[:size],
            "at another place": first[rank:][:size],
            "after all": first[:size],
        }
        for turn, array in enumerate(elsewhere.values()):
            for reduced in (channel.all_reduce, channel.reduce):
                array[...] = np.arange(size) + rank + turn
                go(reduced(array))
                if reduced == channel.all_reduce or rank == 0:
                    np.testing.assert_array_equal(array, 3 * np.arange(size) + 3 + 3 * turn)

    run_on_host(3, body)


def test_all_reduce_does_elsewhere_what_lies_in_no_arena_and_is_too_large_for_a_slot() -> None:
    def body(comm: ThreadsComm) -> None:
        arenas = [WindowMemory(comm, 4 * max(SIZES))]
        arena = arenas[0].take().view(np.float32)
        channel, _kept = make_channel(comm, arenas)
        given: list[Array] = []

        def elsewhere(array: Array) -> Steps:
            given.append(array)
            yield from ()

        large = np.zeros((5, 100), np.float32)
        for array in (np.zeros(60, np.float32), arena, large, large[:0], np.zeros(64, np.float32)):
            go(channel.all_reduce(array, elsewhere))
        assert len(given) == 1
        assert given[0] is large

    run_on_host(2, body)


class Absent:
    """The line of a rank that never comes."""

    num_looks = 0

    def __getitem__(self, word: int) -> int:
        self.num_looks += 1
        return 0


@pytest.mark.parametrize(("num_cores", "offers"), [(2, False), (1, True), (None, True)])
def test_rank_looks_for_others_a_while_and_offers_its_core_where_they_may_need_it(
    monkeypatch: pytest.MonkeyPatch, num_cores: int | None, offers: bool
) -> None:
    num_looks, offered = window_channel.NUM_LOOKS, []
    monkeypatch.setattr(os, "cpu_count", lambda: num_cores)
    monkeypatch.setattr(os, "sched_yield", lambda: offered.append(1))
    part = np.zeros(window_channel.PART_BYTES, np.uint8)
    channel, absent = WindowChannel(0, [part, part.copy()], [], None), Absent()
    monkeypatch.setattr(channel, "_other_lines", [absent])
    steps = channel.all_reduce(np.zeros(3, np.float32))
    next(steps)
    assert absent.num_looks == num_looks + 2  # one to begin with, and one when all may run meanwhile
    assert len(offered) == num_looks * offers
    next(steps)
    assert absent.num_looks == num_looks + 3


def test_every_meeting_is_fenced_before_and_behind() -> None:
    def body(comm: ThreadsComm) -> None:
        memory = WindowMemory(comm, window_channel.PART_BYTES)
        kept = memory.take()
        seen: list[int] = []
        counter = kept[:8].view(np.int64)
        channel = WindowChannel(comm.Get_rank(), memory.parts(), [], lambda: seen.append(int(counter[0])))
        for _ in range(2):
            go(channel.all_reduce(np.zeros(3, np.float32)))
        # The own counter as each fence finds it: not yet counted up before, counted up behind.
        assert seen == [0, 1, 1, 2]

    run_on_host(2, body)
