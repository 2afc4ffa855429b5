from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from dtrain.dist import waiting
from dtrain.dist.waiting import NUM_SPINS, NUM_YIELDS, nothing, pause, until, wait_until


def test_until_yields_whether_it_has_moved_since_the_last_look() -> None:
    answers = iter([False, False, False, True])
    assert list(until(lambda: next(answers))) == [True, False, False]


def test_until_of_what_has_come_yields_nothing() -> None:
    assert list(until(lambda: True)) == []
    assert list(nothing()) == []


@pytest.mark.parametrize(
    ("num_looks", "pauses"),
    [
        (0, []),
        (NUM_SPINS, []),
        (NUM_SPINS + 1, ["yield"]),
        (NUM_SPINS + NUM_YIELDS, ["yield"]),
        (NUM_SPINS + NUM_YIELDS + 1, [waiting.NAP_S]),
    ],
)
def test_pause_grows_longer_with_each_look_in_vain(
    monkeypatch: pytest.MonkeyPatch, num_looks: int, pauses: list[object]
) -> None:
    paused: list[object] = []
    monkeypatch.setattr(time, "sleep", paused.append)
    monkeypatch.setattr(os, "sched_yield", lambda: paused.append("yield"))
    pause(num_looks)
    assert paused == pauses


def test_wait_until_counts_looks_anew_when_something_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[int] = []
    monkeypatch.setattr(waiting, "pause", paused.append)
    moves: Iterator[bool] = iter([False, False, True, False])
    wait_until(lambda: next(moves), lambda: len(paused) == 4)
    assert paused == [1, 2, 0, 1]
