"""Tests of data/workers.py."""

from __future__ import annotations

import gc
import threading
import time

import pytest

from dtrain.data.workers import Workers


@pytest.mark.parametrize("num_threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_run_does_each_number_once(num_threads: int, count: int) -> None:
    workers, done = Workers(num_threads), []
    for _ in range(3):
        workers.run(done.append, count)
        assert sorted(done) == list(range(count))
        done.clear()
    workers.close()


def test_run_uses_all_threads_at_once() -> None:
    barrier = threading.Barrier(3, timeout=10)  # breaks unless three come together
    workers = Workers(3)
    workers.run(lambda _: barrier.wait() and None, 3)
    workers.close()


def test_run_leaves_long_items_to_one_thread() -> None:
    names: dict[int, str] = {}
    others_done = threading.Semaphore(0)

    def work(number: int) -> None:
        names[number] = threading.current_thread().name
        if number == 0:
            assert all(others_done.acquire(timeout=10) for _ in range(9))
        else:
            others_done.release()

    workers = Workers(2)
    workers.run(work, 10)
    assert names[0] not in [names[number] for number in range(1, 10)]
    workers.close()


@pytest.mark.parametrize("num_threads", [1, 4])
def test_run_raises_the_failure_of_the_least_number(num_threads: int) -> None:
    done = []

    def work(number: int) -> None:
        if number in (3, 4):
            time.sleep(0.01 * (5 - number))  # the later one fails first
            raise ValueError(str(number))
        done.append(number)

    workers = Workers(num_threads)
    with pytest.raises(ValueError, match="3"):
        workers.run(work, 1000)
    assert {0, 1, 2} <= set(done)
    assert len(done) < 1000
    workers.run(done.append, 2)  # fit for the next batch
    workers.close()


def test_threads_end_with_close_or_with_the_workers() -> None:
    before = threading.active_count()
    workers, forgotten = Workers(3), Workers(3)
    for some in (workers, forgotten):
        barrier = threading.Barrier(3, timeout=10)
        some.run(lambda _, barrier=barrier: barrier.wait() and None, 3)
    assert threading.active_count() == before + 4
    workers.close()
    workers.close()
    assert threading.active_count() == before + 2
    del forgotten, some
    gc.collect()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threading.active_count() == before
