from __future__ import annotations

import pytest

from dtrain.core.pycaffe import timer as module
from dtrain.core.pycaffe.timer import Timer


class Clock:
    """A clock that stands still until it is moved."""

    now_s = 100.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_timer_ms_is_the_time_between_start_and_stop(clock: Clock) -> None:
    timer = Timer()
    timer.start()
    clock.now_s += 0.25
    timer.start()  # runs already
    clock.now_s += 0.25
    timer.stop()
    clock.now_s += 9
    timer.stop()
    assert timer.ms == 500


def test_timer_ms_of_a_running_timer_stops_it(clock: Clock) -> None:
    timer = Timer()
    timer.start()
    clock.now_s += 0.5
    assert timer.ms == 500
    clock.now_s += 9
    assert timer.ms == 500


def test_timer_started_again_measures_anew_and_one_never_started_nothing(clock: Clock) -> None:
    timer = Timer()
    assert timer.ms == 0
    timer.start()
    clock.now_s += 0.5
    timer.stop()
    timer.start()
    clock.now_s += 0.125
    assert timer.ms == 125
