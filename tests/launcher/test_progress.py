"""The progress line, from standings and samples with round numbers."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.core.net.scores import Score
from dtrain.launcher.console import Console
from dtrain.launcher.progress import (
    ProgressObserver,
    Sample,
    Speedometer,
    Standing,
    best_score,
    format_duration,
    progress_line,
)

HALFWAY = Standing(500, 1000, 0.25, 0.01, 64, "accuracy 0.9750", 3.26)


class FakeTerminalConsole(Console):
    """A console that keeps its status lines."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.shown: list[str] = []

    @property
    def shows_status(self) -> bool:
        return True

    def set_status(self, text: str) -> None:
        self.shown.append(text)

    def clear_status(self) -> None:
        self.shown.append("")


def make_solver(iteration: int, waited_s: float) -> Any:
    layer = SimpleNamespace(
        loader=SimpleNamespace(waited_s=waited_s),
        records_per_pass=64,
        position=128 * iteration,
        num_records=40_000,
    )
    return SimpleNamespace(
        iter=iteration,
        max_iter=1000,
        smoothed_loss=0.25,
        learning_rate=0.01,
        param=SimpleNamespace(iter_size=2),
        net=SimpleNamespace(reading_layers=[layer]),
    )


def test_progress_line_halfway_says_all() -> None:
    line = progress_line(HALFWAY, Sample(10.0, 400, 1.0), Sample(15.0, 500, 1.1))
    assert line == (
        "iteration 500/1000  epoch 3.3  loss 0.25  accuracy 0.9750  ETA 0:25  20.0 iter/s  1,280 images/s  "
        "data wait 2.0%  lr 0.01"
    )


def test_progress_line_before_any_speed_is_known_leaves_it_out() -> None:
    sample = Sample(10.0, 0, 0.0)
    line = progress_line(Standing(0, 1000, 2.5, 0.01, 64), sample, sample)
    assert line == "iteration 0/1000  loss 2.5  lr 0.01"


def test_progress_line_of_a_net_without_images_has_no_images() -> None:
    standing = Standing(500, 1000, 0.25, 0.01, 0)
    line = progress_line(standing, Sample(0.0, 400, 0.0), Sample(1.0, 500, 0.0))
    assert "images" not in line
    assert "100.0 iter/s" in line


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (59.6, "1:00")]
)
def test_format_duration_of_seconds(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ([Score("loss", 0.5, 1.0), Score("Accuracy_top1", 0.25, 0.0)], "Accuracy_top1 0.2500"),
        ([Score("loss", 0.5, 1.0), Score("l2", 3.0, 0.0)], "loss 0.5000"),
        ([], ""),
    ],
)
def test_best_score_prefers_an_accuracy(scores: list[Score], text: str) -> None:
    assert best_score(scores) == text


def test_speedometer_is_due_after_a_tenth_of_a_second() -> None:
    speedometer = Speedometer()
    assert speedometer.is_due(5.0)
    speedometer.add(Sample(5.0, 1, 0.0))
    assert not speedometer.is_due(5.05)
    assert speedometer.is_due(5.15)


def test_speedometer_forgets_old_samples() -> None:
    speedometer = Speedometer()
    samples = [Sample(float(i), i, 0.0) for i in range(80)]
    for sample in samples:
        speedometer.add(sample)
    assert speedometer.ends() == (samples[30], samples[79])  # the last 50


def test_progress_observer_shows_speeds_since_the_start_and_the_last_test() -> None:
    console, now = FakeTerminalConsole(), [0.0]
    observer = ProgressObserver(console, clock=lambda: now[0])
    observer.on_start(make_solver(400, 1.0))
    observer.on_test(make_solver(400, 1.0), 0, [Score("accuracy", 0.9, 0.0)])
    observer.on_test(make_solver(400, 1.0), 1, [Score("accuracy", 0.1, 0.0)])
    now[0] = 0.05
    observer.on_iteration(make_solver(401, 1.0))  # too early for a line
    now[0] = 5.0
    observer.on_iteration(make_solver(500, 1.5))
    observer.on_end(make_solver(500, 1.5))
    assert console.shown == [
        "iteration 500/1000  epoch 1.6  loss 0.25  accuracy 0.9000  ETA 0:25  20.0 iter/s  2,560 images/s  "
        "data wait 10.0%  lr 0.01",
        "",
    ]


def test_progress_observer_without_terminal_shows_nothing() -> None:
    stream = io.StringIO()
    observer = ProgressObserver(Console(stream))
    observer.on_start(make_solver(0, 0.0))
    observer.on_iteration(make_solver(1, 0.0))
    observer.on_end(make_solver(1, 0.0))
    assert stream.getvalue() == ""
