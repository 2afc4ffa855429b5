"""Tests of data/prefetcher.py."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dtrain.data.prefetcher import Prefetcher

ROOT = Path(__file__).resolve().parents[2]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread will do; fail after ten seconds."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.001)


def make_buffers(num_buffers: int) -> list[list[int]]:
    return [[] for _ in range(num_buffers)]


def fill_with_number(number: int, buffer: list[int]) -> None:
    buffer[:] = [number]


def take(prefetcher: Prefetcher[list[int]]) -> int:
    buffer = prefetcher.get()
    number = buffer[0]
    prefetcher.put_back(buffer)
    return number


@pytest.mark.parametrize("num_buffers", [2, 3, 7])
def test_get_many_times_returns_every_fill_in_order(num_buffers: int) -> None:
    prefetcher = Prefetcher(fill_with_number, make_buffers(num_buffers))
    assert [take(prefetcher) for _ in range(100)] == list(range(100))
    prefetcher.stop()


def test_prefetcher_left_alone_fills_its_buffers_and_no_more() -> None:
    filled: list[int] = []
    prefetcher = Prefetcher(lambda number, _: filled.append(number), make_buffers(5))
    wait_until(lambda: prefetcher.num_ready == 5)
    time.sleep(0.02)
    assert filled == [0, 1, 2, 3, 4]
    prefetcher.get()
    assert prefetcher.num_ready == 4
    prefetcher.stop()


def test_get_after_the_last_fill_raises_stop_iteration_each_time() -> None:
    prefetcher = Prefetcher(fill_with_number, make_buffers(2), num_fills=3)
    assert [take(prefetcher) for _ in range(3)] == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(StopIteration):
            prefetcher.get()
    prefetcher.stop()


def test_get_of_a_failed_fill_raises_its_error_after_the_good_ones() -> None:
    def fill(number: int, buffer: list[int]) -> None:
        if number == 2:
            raise ValueError("record 2 is bad")
        fill_with_number(number, buffer)

    prefetcher = Prefetcher(fill, make_buffers(4))
    assert [take(prefetcher) for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(ValueError, match="record 2 is bad"):
            prefetcher.get()
    prefetcher.stop()


def test_get_with_a_timeout_gives_up_and_loses_nothing() -> None:
    may_fill = threading.Event()

    def fill(number: int, buffer: list[int]) -> None:
        assert may_fill.wait(60)
        buffer[:] = [number]

    prefetcher = Prefetcher(fill, make_buffers(2))
    for _ in range(2):
        with pytest.raises(TimeoutError, match="within 0.001 s"):
            prefetcher.get(0.001)
    may_fill.set()
    assert [take(prefetcher) for _ in range(3)] == [0, 1, 2]
    prefetcher.stop()


@pytest.mark.parametrize("num_taken", [0, 1, 20])
def test_stop_at_any_time_ends_the_thread(num_taken: int) -> None:
    before = set(threading.enumerate())
    prefetcher = Prefetcher(fill_with_number, make_buffers(3), name="stopped")
    for _ in range(num_taken):
        take(prefetcher)
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["stopped"]
    prefetcher.stop()
    prefetcher.stop()
    assert set(threading.enumerate()) == before


def test_stop_waits_for_the_fill_that_runs() -> None:
    may_go_on, done = threading.Event(), threading.Event()

    def fill(number: int, buffer: list[int]) -> None:
        may_go_on.wait(10)
        done.set()

    prefetcher = Prefetcher(fill, make_buffers(2))
    threading.Timer(0.05, may_go_on.set).start()
    prefetcher.stop()
    assert done.is_set()


def test_prefetcher_that_nobody_uses_any_more_ends_its_thread() -> None:
    before = set(threading.enumerate())
    prefetcher = Prefetcher(fill_with_number, make_buffers(2))
    del prefetcher
    gc.collect()
    assert not set(threading.enumerate()) - before


@pytest.mark.parametrize("work", ["pass", "time.sleep(0.2)", "sum(range(10**6))"])
def test_interpreter_with_a_running_thread_ends_at_once_and_cleanly(work: str) -> None:
    program = (
        "import time\n"
        "from dtrain.data.prefetcher import Prefetcher\n"
        f"def fill(number, buffer): {work}\n"
        "prefetcher = Prefetcher(fill, [[], [], []])\n"
        "prefetcher.get()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=20, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_prefetcher_with_one_buffer_asserts() -> None:
    with pytest.raises(AssertionError, match="at least 2 buffers"):
        Prefetcher(fill_with_number, make_buffers(1))
