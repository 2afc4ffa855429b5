"""The watchdog by a fake clock: what is stuck, and what is only slow."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from dtrain.dist.ending import Ending
from dtrain.dist.mirror import Reading
from dtrain.dist.watchdog import START_S, STOPPED_S, TRAINING_S, Watchdog

LOOK_S = 0.5


class Rank:
    """A rank under a watchdog, on a clock of its own that starts at 1000 s."""

    def __init__(self, timeout_s: float | None = None) -> None:
        self.now = 1000.0
        self.timeout_s = timeout_s
        self.watchdog = Watchdog(self.now)
        self.reading = Reading(timeout_s=timeout_s)

    def change(self, iteration: int | None, doing: str = "computing", collective: str = "") -> None:
        self.reading = Reading(
            self.reading.changes + 1, iteration, doing, collective, timeout_s=self.timeout_s
        )
        assert self.look() is None

    def look(self, state: str = "S") -> Ending | None:
        return self.watchdog.look(self.now, self.reading, state)

    def last(self, seconds: float, state: str = "S") -> Ending | None:
        """Look twice a second for `seconds` in which nothing changes; return the first ending."""
        end = self.now + seconds
        while self.now < end:
            self.now += LOOK_S
            ending = self.look(state)
            if ending:
                return ending
        return None

    def train(self, durations_s: Iterable[float]) -> None:
        """Do iterations of these durations, in which something changes every 30 s."""
        first = 0 if self.reading.iteration is None else self.reading.iteration + 1
        for i, duration in enumerate(durations_s, first):
            self.change(i)
            left = duration
            while left > 0:
                assert self.last(min(left, 30.0)) is None
                left -= 30.0
                self.change(i)


def lasts_until(rank: Rank) -> float:
    """Return after how many seconds without a change the rank is ended."""
    began = rank.now
    assert rank.last(1e5) is not None
    return rank.now - began


def test_watchdog_at_start_waits_for_ten_minutes() -> None:
    assert lasts_until(Rank()) == pytest.approx(START_S, abs=2 * LOOK_S)


def test_watchdog_in_the_first_iteration_still_has_the_time_of_the_start() -> None:
    rank = Rank()
    rank.change(0)
    assert lasts_until(rank) == pytest.approx(START_S, abs=2 * LOOK_S)


@pytest.mark.parametrize(
    ("durations_s", "timeout_s"),
    [
        ([100, 1, 1], TRAINING_S),  # the first iteration, which compiles, does not count
        ([1, 1, 10, 1], 200.0),
        ([1, 100, 1], 2000.0),
    ],
)
def test_watchdog_while_training_waits_for_many_iterations_or_a_minute(
    durations_s: list[float], timeout_s: float
) -> None:
    rank = Rank()
    rank.train(durations_s)
    rank.change(len(durations_s))
    assert lasts_until(rank) == pytest.approx(timeout_s, rel=0.03)


def test_watchdog_of_a_rank_that_becomes_ten_times_slower_lets_it_work() -> None:
    rank = Rank()
    rank.train([20] * 5)
    rank.change(5)
    assert rank.last(200) is None  # one layer takes as long as ten iterations did


@pytest.mark.parametrize("doing", ["writing a snapshot", "loading weights", "building the nets"])
def test_watchdog_while_files_are_read_or_written_has_the_time_of_the_start(doing: str) -> None:
    rank = Rank()
    rank.train([1] * 5)
    rank.change(5, doing)
    assert lasts_until(rank) == pytest.approx(START_S, abs=2 * LOOK_S)


def test_watchdog_in_a_collective_call_waits_longer_than_any_other_rank_may_take() -> None:
    rank = Rank()
    rank.train([1] * 5)
    rank.change(5, "summing", "all_reduce")
    began = rank.now
    ending = rank.last(1e5)
    assert ending is not None
    assert ending.what.startswith("waited 1200 s in all_reduce")
    assert rank.now - began == pytest.approx(2 * START_S, abs=2 * LOOK_S)


@pytest.mark.parametrize(("collective", "limit_s"), [("", 40.0), ("barrier", 80.0)])
@pytest.mark.parametrize("iteration", [None, 7])
def test_watchdog_with_the_users_timeout_keeps_to_it(
    collective: str, limit_s: float, iteration: int | None
) -> None:
    rank = Rank(timeout_s=40.0)
    rank.change(iteration, "writing", collective)
    assert lasts_until(rank) == pytest.approx(limit_s, abs=2 * LOOK_S)


@pytest.mark.parametrize("collective", ["", "barrier"])
def test_watchdog_with_a_timeout_of_zero_waits_for_ever(collective: str) -> None:
    rank = Rank(timeout_s=0.0)
    rank.change(7, "computing", collective)
    assert rank.last(20_000) is None


def test_watchdog_of_a_stopped_rank_ends_it_after_the_grace() -> None:
    rank = Rank(timeout_s=0.0)
    rank.change(7)
    began = rank.now
    ending = rank.last(100, state="T")
    assert ending is not None
    assert "was stopped" in ending.what
    assert rank.now - began == pytest.approx(STOPPED_S, abs=2 * LOOK_S)


def test_watchdog_of_a_rank_that_is_continued_in_time_begins_anew() -> None:
    rank = Rank()
    rank.train([1, 1])
    for _ in range(20):
        assert rank.last(STOPPED_S - 2, state="T") is None
        assert rank.last(1) is None
    # Of 180 s without a change 20 count: less than a minute.


def test_watchdog_of_a_rank_under_a_debugger_waits_for_ever() -> None:
    rank = Rank()
    rank.train([1, 1])
    assert rank.last(5000, state="t") is None
    assert lasts_until(rank) == pytest.approx(TRAINING_S, abs=2 * LOOK_S)


@pytest.mark.parametrize("state", ["S", "T"])
def test_watchdog_that_was_suspended_itself_does_not_count_that_time(state: str) -> None:
    rank = Rank()
    rank.train([1, 1])
    rank.look(state)
    rank.now += 3600
    assert rank.look(state) is None
    assert rank.last(5, state) is None


def test_watchdog_that_was_suspended_does_not_take_the_time_for_a_long_iteration() -> None:
    rank = Rank()
    rank.train([1, 1, 1])
    rank.now += 3600
    rank.train([1])
    rank.change(4)
    assert lasts_until(rank) == pytest.approx(TRAINING_S, abs=2 * LOOK_S)
