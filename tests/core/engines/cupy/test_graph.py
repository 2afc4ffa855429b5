"""Graphs: what was captured happens at each replay, on memory that nobody else gets, and not before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy.graph import CaptureFailed, Mailbox, Stage
from tests.played.cupy import play_cupy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the played cupy, or on a machine with a GPU the real one."""
    return play_cupy(monkeypatch)


def test_capture_does_nothing_and_each_replay_all_of_it(cupy: Any) -> None:
    x, y = cupy.zeros(4, np.float32), cupy.zeros(4, np.float32)
    x.fill(2)

    def work() -> None:
        scratch = x * 3  # that nobody knows any more when it is replayed
        y.__iadd__(scratch + 1)

    stage = Stage(cupy)
    with stage.entered():
        work()
    np.testing.assert_array_equal(y.get(), [7, 7, 7, 7])
    graph = stage.capture(work)
    np.testing.assert_array_equal(y.get(), [7, 7, 7, 7])
    others = [cupy.empty(4, np.float32) for _ in range(8)]  # would get the scratch memory, if anybody did
    for array in others:
        array.fill(100)
    graph.replay()
    np.testing.assert_array_equal(y.get(), [14, 14, 14, 14])
    x.fill(0)
    graph.replay()
    np.testing.assert_array_equal(y.get(), [15, 15, 15, 15])
    for array in others:
        np.testing.assert_array_equal(array.get(), [100] * 4)


def test_stage_is_behind_what_its_user_had_given_before_and_in_front_of_what_comes(cupy: Any) -> None:
    stage = Stage(cupy)
    x = cupy.zeros(1 << 20, np.float32)
    for k in range(1, 6):
        x.fill(k)
        with stage.entered():
            x *= 2
        x += 1
        np.testing.assert_array_equal(x[:: 1 << 18].get(), [2 * k + 1] * 4)


@pytest.mark.parametrize("look", [lambda x: float(x[0]), lambda x: x.get()])
def test_capture_of_what_needs_the_host_says_so_and_leaves_all_as_it_was(cupy: Any, look: Any) -> None:
    x = cupy.zeros(2, np.float32)

    def work() -> None:
        x.fill(5)
        look(x)

    with pytest.raises(CaptureFailed, match=r"^\w+: "):
        Stage(cupy).capture(work)
    np.testing.assert_array_equal(x.get(), [0, 0])
    again = Stage(cupy).capture(lambda: x.fill(6))
    again.replay()
    np.testing.assert_array_equal(x.get(), [6, 6])


def test_mailbox_brings_values_once_its_event_has_happened(cupy: Any) -> None:
    box = Mailbox(cupy, 3)
    for k in (1.5, 2.5):
        box.sent.fill(k)
        event = box.post()
        box.sent.fill(0)  # what comes behind does not count
        event.synchronize()
        np.testing.assert_array_equal(box.take(), [k, k, k])
