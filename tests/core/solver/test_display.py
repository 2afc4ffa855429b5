"""Caffe's sentences, word for word: log parsers read them."""

from __future__ import annotations

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest

from dtrain.core.net.scores import Score
from dtrain.core.solver.display import Display, show_test
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.net_builder import inputs, make_net
from tests.core.solver.small_runs import Recorder, SmallRuns, opened

NET = (
    inputs(a=(1, 2))
    + """
    layer { name: "s" type: "EuclideanLoss" bottom: "a" bottom: "a" top: "zero" loss_weight: 0.5 }
    layer { name: "t" type: "TanH" bottom: "a" top: "t" }"""
)
NUMBER = r"[0-9.e+-]+"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


@pytest.mark.parametrize(
    ("interval", "due"), [(0, []), (1, [0, 1, 2, 3, 4, 5, 6]), (3, [0, 3, 6]), (100, [0])]
)
def test_is_due_every_interval_and_never_for_0(interval: int, due: list[int]) -> None:
    display = Display(make_net(NET), SingleCommunicator(), interval)
    assert [iteration for iteration in range(7) if display.is_due(iteration)] == due


def test_show_epoch_says_which_begins_and_where(log: pytest.LogCaptureFixture, runs: SmallRuns) -> None:
    with opened(runs.write(), SingleCommunicator()) as solver:
        log.clear()
        display = Display(solver.net, SingleCommunicator(), 10)
        display.show_epoch(0, 0)
        display.show_epoch(1200, 3)
        display.show_epoch(1209, 4)  # too soon after it
        display.show_epoch(1210, 5)
    assert log.messages == [
        f'Epoch {epoch} begins at iteration {iteration} (100 records of layer "data")'
        for epoch, iteration in ((3, 1200), (5, 1210))
    ]
    assert not re.search(r"Iteration (\d+)", log.messages[0])  # which Caffe's parse_log.py looks for


def test_show_logs_speed_loss_outputs_and_rate(
    log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 100.0, 104.0])  # made, lap started, shown
    monkeypatch.setattr("dtrain.core.solver.display.time", SimpleNamespace(perf_counter=lambda: next(times)))
    net = make_net(NET)
    net.forward()
    display = Display(net, SingleCommunicator(), 10)
    display.start_lap(20)
    display.show(30, 0.123456789, 0.01)
    assert log.messages == [
        "Iteration 30 (2.5 iter/s, 4s/10 iters), loss = 0.123457",
        "    Train net output #0: t = 0",
        "    Train net output #1: t = 0",
        "    Train net output #2: zero = 0 (* 0.5 = 0 loss)",
        "Iteration 30, lr = 0.01",
    ]


@pytest.mark.parametrize("world_size", [1, 3])
def test_show_gives_the_means_over_all_ranks(log: pytest.LogCaptureFixture, world_size: int) -> None:
    def body(communicator: Communicator) -> None:
        net = make_net(NET)
        net.blobs["a"].data[...] = np.arctanh(0.25 * communicator.rank)
        net.forward()
        display = Display(net, communicator, 1)
        display.show(1, 3.0 * communicator.rank, 0.5)
        display.show_loss(2, 1.0 + communicator.rank)

    run_ranks(world_size, body)
    middle = (world_size - 1) / 2
    assert f"    Train net output #0: t = {0.25 * middle:g}" in log.messages
    assert f"Iteration 2, loss = {1 + middle:g}" in log.messages
    assert sum(message.endswith(f", loss = {3 * middle:g}") for message in log.messages) >= 1


def test_show_test_logs_the_loss_first_if_it_is_asked_for(log: pytest.LogCaptureFixture) -> None:
    show_test([Score("accuracy", 0.5, 0)], 0.25)
    show_test([Score("accuracy", 0.5, 0)], None)
    line = "    Test net output #0: accuracy = 0.5"
    assert log.messages == ["Test loss: 0.25", line, line]


def lines_of_tests(recorder: Recorder, iteration: int) -> list[str]:
    """Return what both test nets log at an iteration."""
    lines = []
    for at, index, scores in recorder.tests:
        if at == iteration:
            accuracy, loss = (f"{score.value:g}" for score in scores)
            lines += [
                f"Iteration {iteration}, Testing net (#{index})",
                f"Test loss: {loss}",
                f"    Test net output #0: accuracy = {accuracy}",
                f"    Test net output #1: loss = {loss} (* 1 = {loss} loss)",
            ]
    return lines


def lines_shown(iteration: int, loss: float, smoothed: float, rate: float) -> list[str]:
    """Return what a display iteration logs; figures of speed are replaced by words."""
    return [
        f"Iteration {iteration} (SPEED iter/s, TIMEs/2 iters), loss = {smoothed:g}",
        f"    Train net output #0: loss = {loss:g} (* 1 = {loss:g} loss)",
        f"Iteration {iteration}, lr = {rate:g}",
    ]


def test_solve_logs_caffe_s_lines_in_caffe_s_order(runs: SmallRuns, log: pytest.LogCaptureFixture) -> None:
    path = runs.write(
        "max_iter: 4 display: 2 average_loss: 3 test_interval: 4 test_iter: [2, 1] test_compute_loss: true "
        'snapshot: 3 base_lr: 0.5 lr_policy: "step" gamma: 0.5 stepsize: 2'
    )
    recorder = Recorder()
    with opened(path, SingleCommunicator(), recorder) as solver:
        log.clear()
        solver.solve()
        losses = [*recorder.losses, float(solver.net.blobs["loss"].data)]
    assert len(recorder.tests) == 4
    speed = re.compile(rf"\({NUMBER} iter/s, {NUMBER}s/")
    assert [speed.sub("(SPEED iter/s, TIMEs/", line) for line in log.messages] == [
        "Solving small",
        "Learning Rate Policy: step",
        *lines_of_tests(recorder, 0),
        *lines_shown(0, losses[0], losses[0], 0.5),
        *lines_shown(2, losses[2], float(np.mean(losses[:3])), 0.25),
        f"Snapshotting to binary proto file {runs.folder}/run_iter_3.caffemodel",
        f"Snapshotting solver state to binary proto file {runs.folder}/run_iter_3.solverstate",
        f"Iteration 4, loss = {np.mean(losses[2:]):g}",
        *lines_of_tests(recorder, 4),
        "Optimization Done.",
    ]


def test_solve_that_is_stopped_says_so(runs: SmallRuns, log: pytest.LogCaptureFixture) -> None:
    with opened(runs.write("max_iter: 4 display: 1"), SingleCommunicator()) as solver:
        solver.request_stop()
        solver.solve()
    assert log.messages[-1] == "Optimization stopped early."
    assert "Optimization Done." not in log.messages
