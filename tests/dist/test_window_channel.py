"""The sums are in test_communicator.py and test_reduction.py, over window.py; here is what only hierarchical.py
takes from a channel, and that nothing is written while others may read it."""

from __future__ import annotations

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
