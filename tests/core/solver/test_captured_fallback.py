"""Iterations that can't be CUDA graphs, or not any more: the log says why, and the run goes on to the same bits."""

from __future__ import annotations

from typing import Any

import pytest

from dtrain.core.errors import UserError
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.solver.captured_runs import BY_ITSELF, REPLAYED, Start, assert_same_run, count, opened, run
from tests.core.solver.small_runs import BATCH_NORM, DROPOUT, Outcome, SmallRuns, outcome_of
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy
from tests.played.nccl import join_nccl


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    play_cudnn(monkeypatch)


def read_back(solver: Solver) -> None:
    """Let a layer look at its bottom, without saying so."""
    layer = solver.net.layers[solver.net.layer_names.index("ip")]
    forward = layer.forward

    def looking(bottom: Any, top: Any) -> None:
        float(bottom[0].read_data(layer.memory).sum())
        forward(bottom, top)

    layer.forward = looking  # type: ignore[method-assign]


FILTERED = (
    'layer { name: "all" type: "Filter" bottom: "ip" bottom: "label" top: "some" include { phase: TRAIN } } '
    'layer { name: "quiet" type: "Silence" bottom: "some" include { phase: TRAIN } }'
)


@pytest.mark.parametrize(
    ("fields", "tail", "start", "reason"),
    [
        ("", FILTERED, None, 'layer "all" takes a shape that depends on values'),
        ("debug_info: true", "", None, "debug_info looks at what layers have done"),
        ("type: 'LARS'", "", None, "updates of type LARS are told by the host what each param needs"),
        (
            "dtrain_param { stale_gradients: true }",
            "",
            None,
            "stale_gradients keeps sums for the iteration after",
        ),
        (
            "",
            "",
            lambda solver: solver.callbacks.append((lambda: None, lambda: None)),
            "callbacks look at what layers have done",
        ),
        (
            "",
            "",
            lambda solver: solver.net.callbacks.after_forward.append(lambda i: None),
            "callbacks look at what layers have done",
        ),
        ("", "", read_back, "it can't be captured ("),
    ],
)
def test_run_that_cannot_be_captured_says_why_and_goes_on(
    runs: SmallRuns,
    caplog: pytest.LogCaptureFixture,
    fields: str,
    tail: str,
    start: Start | None,
    reason: str,
) -> None:
    path = runs.write(f"{fields} max_iter: 5 iter_size: 2", middle=BATCH_NORM + DROPOUT, tail=tail)
    mine = run(path, True, start or (lambda solver: None))
    told = [message for message in caplog.messages if message.startswith(BY_ITSELF)]
    assert len(told) == 1
    assert told[0].startswith(f"{BY_ITSELF}: {reason}"), told
    assert count(caplog, REPLAYED) == 0
    theirs = run(path, False, start or (lambda solver: None))
    assert_same_run(mine, theirs)


def cut(solver: Solver, iteration: int) -> None:
    """Let the layer that reads give half a batch from one iteration on."""
    layer, forward = solver.net.layers[0], solver.net.layers[0].forward

    def reading(bottom: Any, top: Any) -> None:
        forward(bottom, top)
        if solver.iter >= iteration:
            for blob in top:
                blob.reshape(4, *blob.shape[1:])

    layer.forward = reading  # type: ignore[method-assign]


def test_batches_that_change_their_shape_end_the_graphs(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write("max_iter: 8 iter_size: 2", middle=DROPOUT)
    start: Start = lambda solver: cut(solver, 5)  # noqa: E731
    mine = run(path, True, start)
    assert count(caplog, REPLAYED) == 1
    assert count(caplog, f"{BY_ITSELF} from now on: a batch of shape (4, ") == 1
    assert_same_run(mine, run(path, False, start))


def test_callbacks_that_come_later_end_the_graphs_of_one_rank(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    def train(captures: bool) -> Outcome:
        with opened(runs.write("max_iter: 8"), captures) as (solver, recorder):
            solver.step(5)
            solver.callbacks.append(
                (lambda: None, lambda: seen.append(solver.net.params["ip"][0].diff.sum()))
            )
            solver.solve()
            return outcome_of(solver, recorder)

    assert_same_run(train(True), train(False))
    assert count(caplog, f"{BY_ITSELF} from now on: callbacks ") == 1
    assert seen[:3] == seen[3:]


def test_callbacks_that_come_later_are_refused_on_several_ranks(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    join_nccl(monkeypatch, play_cupy(monkeypatch, num_devices=2))
    path = runs.write("max_iter: 8")

    def body(host: Communicator) -> str:
        with opened(path, True, communicator=NcclCommunicator(host)) as (solver, _):
            solver.step(4)
            solver.callbacks.append((lambda: None, lambda: None))
            with pytest.raises(UserError) as raised:
                solver.step(1)
            return str(raised.value)

    assert run_ranks(2, body)[1] == (
        "all ranks must go on with the graphs of their iterations, got on rank 1: callbacks look at what layers have "
        "done; train without graphs (--no-graph)"
    )


def test_ranks_of_which_one_cannot_capture_all_say_why_and_go_on(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    join_nccl(monkeypatch, play_cupy(monkeypatch, num_devices=2))
    path = runs.write("max_iter: 5 iter_size: 2", middle=DROPOUT)

    def train(captures: bool) -> list[Outcome]:
        def body(host: Communicator) -> Outcome:
            start = read_back if host.rank == 1 else (lambda solver: None)
            return run(path, captures, start, communicator=NcclCommunicator(host))

        return run_ranks(2, body)

    for mine, theirs in zip(train(True), train(False), strict=True):
        assert_same_run(mine, theirs)
    assert count(caplog, REPLAYED) == 0
    told = [message for message in caplog.messages if message.startswith(BY_ITSELF)]
    assert len(told) == 2
    assert "rank 1 (" in told[0]
    assert "HostTraffic" in told[0]


def test_graphs_are_not_made_unless_asked_for(runs: SmallRuns, caplog: pytest.LogCaptureFixture) -> None:
    run(runs.write("max_iter: 4"), captures=False)
    assert count(caplog, REPLAYED) + count(caplog, BY_ITSELF) == 0


def test_gradients_that_travel_by_the_host_are_named_as_the_reason(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write("max_iter: 4")
    run_ranks(2, lambda host: run(path, captures=True, communicator=host))
    assert count(caplog, f"{BY_ITSELF}: communicator threads sums on the host") == 2
