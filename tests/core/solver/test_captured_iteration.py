"""Iterations as CUDA graphs: the same bits as launched layer by layer, on played devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy.graph import Graph
from dtrain.core.engines.cupy.staging import StagedFeed
from dtrain.core.errors import UserError
from dtrain.core.solver.device_pass import DevicePass
from dtrain.core.solver.solver import Solver
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.solver.captured_runs import BY_ITSELF, REPLAYED, Start, assert_same_run, count, opened, run
from tests.core.solver.small_runs import (
    BATCH_NORM,
    DROPOUT,
    NUM_CLASSES,
    Outcome,
    SmallRuns,
    assert_same_bits,
    params_of,
    write_database,
)
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy
from tests.played.nccl import join_nccl

# A second loss, weighed, of more than one value, by a layer of which one param is learned and one is fixed.
SIDE = (
    'layer { name: "side" type: "InnerProduct" bottom: "data" top: "side" param { lr_mult: 1 } param { lr_mult: 0 } '
    'inner_product_param { num_output: 3 weight_filler { type: "xavier" } bias_filler { value: 0.2 } } } '
    'layer { name: "size" type: "Reduction" bottom: "side" top: "size" loss_weight: 0.01 '
    "reduction_param { operation: SUMSQ axis: 1 } }"
)

FIELDS = "max_iter: 8 clip_gradients: 0.6 test_iter: 2 test_interval: 3"


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    play_cudnn(monkeypatch)


@pytest.mark.parametrize(
    ("engine", "iter_size", "middle", "more"),
    [
        ("cupy", 1, DROPOUT, ""),
        ("cupy", 3, BATCH_NORM + DROPOUT, ""),
        ("cudnn", 1, BATCH_NORM + DROPOUT, "type: 'Adam' base_lr: 0.01 momentum: 0.9"),
        ("cudnn", 2, DROPOUT, "dtrain_param { ema_decay: 0.9 }"),
        ("cudnn", 3, BATCH_NORM + DROPOUT, ""),
        ("cudnn", 2, BATCH_NORM + DROPOUT, "dtrain_param { precision: BF16 }"),
        ("cudnn", 2, DROPOUT, "dtrain_param { precision: FLOAT16 }"),
    ],
)
def test_captured_run_has_the_bits_of_one_launched_by_layers(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture, engine: str, iter_size: int, middle: str, more: str
) -> None:
    path = runs.write(f"{FIELDS} iter_size: {iter_size} {more}", middle=middle, tail=SIDE)
    mine = run(path, captures=True, engine=engine)
    assert (count(caplog, REPLAYED), count(caplog, BY_ITSELF)) == (1, 0)
    assert_same_run(mine, run(path, captures=False, engine=engine))
    assert count(caplog, REPLAYED) == 1


@pytest.mark.parametrize("memory", ["kept", "recomputed"])
def test_captured_run_has_the_same_bits_however_blobs_have_their_memory(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture, memory: str
) -> None:
    path = runs.write(f"{FIELDS} iter_size: 2", middle=BATCH_NORM + DROPOUT, tail=SIDE)
    mine = run(path, captures=True, memory=memory)
    assert count(caplog, REPLAYED) == 1
    assert_same_run(mine, run(path, captures=False))


def test_captured_run_resumes_to_the_same_bits(runs: SmallRuns) -> None:
    path = runs.write(f"{FIELDS} iter_size: 2 snapshot: 4", middle=BATCH_NORM + DROPOUT)
    undisturbed = run(path, captures=True)
    for captures in (True, False):
        resumed = run(path, captures, lambda solver: solver.restore(str(runs.state(4))))
        assert resumed.losses == undisturbed.losses[4:]
        assert_same_bits(resumed, undisturbed)


def test_solver_that_has_graphs_goes_back_to_a_snapshot(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 9 snapshot: 2 iter_size: 2", middle=BATCH_NORM + DROPOUT)

    def go_on_and_back(solver: Solver) -> None:
        solver.step(7)
        solver.restore(str(runs.state(2)))

    undisturbed = run(path, captures=False)
    again = run(path, True, go_on_and_back)
    assert again.losses[7:] == undisturbed.losses[2:]
    assert_same_bits(again, undisturbed)


def test_what_a_script_does_between_replays_counts(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 12 iter_size: 2", middle=BATCH_NORM + DROPOUT)

    def train(captures: bool) -> tuple[dict[str, Any], list[Any]]:
        with opened(path, captures) as (solver, _):
            shown = []
            for k in range(6):
                solver.step(2)
                shown.append(float(solver.net.blobs["loss"].data))
                weight = solver.net.params["ip"][0]
                shown += [weight.data.sum(), weight.diff.sum()]
                weight.data[...] *= 0.5 + 0.1 * k  # also of an array that was asked for before
                solver.net.params["bn"][2].data[...] *= 0.9
                if k == 3:
                    shown.append(solver.net.forward())
                    solver.net.backward()
            return params_of(solver), shown

    (mine, seen), (theirs, expected) = train(True), train(False)
    assert seen == expected
    for name, values in theirs.items():
        np.testing.assert_array_equal(mine[name], values, err_msg=name)


def spoil(solver: Solver, iteration: int) -> None:
    """Let a weight be NaN in one iteration, and be well again after it."""
    weight, update = solver.net.params["ip"][0], solver.iteration.forward_backward

    def forward_backward(number: int, callbacks: Any) -> None:
        kept = weight.data[0, 0].copy()
        if number == iteration:
            weight.data[0, 0] = np.nan
        update(number, callbacks)
        if number == iteration:
            weight.data[0, 0] = kept

    solver.iteration.forward_backward = forward_backward  # type: ignore[method-assign]


@pytest.mark.parametrize("iter_size", [1, 2])
def test_loss_that_is_nan_in_a_replay_ends_the_run_before_its_update(runs: SmallRuns, iter_size: int) -> None:
    path = runs.write(f"max_iter: 8 iter_size: {iter_size}", middle=BATCH_NORM)
    with opened(path, captures=True) as (solver, recorder):
        spoil(solver, 5)
        before = {}
        recorder.after = lambda solver: before.update(params_of(solver))
        with pytest.raises(
            UserError, match=r'iteration 5: loss must be finite; .*layer "ip": 1 of .* in its params'
        ):
            solver.solve()
        assert solver.iter == 5
        for name, values in params_of(solver).items():
            if not name.startswith("bn"):
                np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_loss_that_is_nan_in_a_replay_if_skipped_leaves_out_that_update_alone(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write("max_iter: 8 dtrain_param { on_non_finite_loss: SKIP }", middle=DROPOUT + BATCH_NORM)
    start: Start = lambda solver: spoil(solver, 4)  # noqa: E731
    mine = run(path, True, start)
    assert sum("its update is left out" in message for message in caplog.messages) == 1
    assert_same_run(mine, run(path, False, start))


@pytest.mark.parametrize("captures", [True, False])
def test_label_that_is_no_class_is_named_with_its_record(tmp_path: Path, captures: bool) -> None:
    write_database(tmp_path / "lmdb", mislabelled=43)  # the sixth batch's
    path = SmallRuns(tmp_path, str(tmp_path / "lmdb")).write("max_iter: 8")
    with opened(path, captures) as (solver, _):
        with pytest.raises(UserError, match=rf'layer "loss": .*got {NUM_CLASSES} .*record "00000043"'):
            solver.solve()
        assert solver.iter == 5


@pytest.mark.parametrize(("middle", "num_told"), [(BATCH_NORM, 0), (DROPOUT, 5)])
def test_graph_that_draws_nothing_is_not_told_which_replay_it_is(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch, middle: str, num_told: int
) -> None:
    told: list[int] = []
    set_replays = DevicePass.set_replays

    def tell(work: DevicePass, count: int) -> None:
        told.append(count)
        set_replays(work, count)

    monkeypatch.setattr(DevicePass, "set_replays", tell)
    run(runs.write("max_iter: 8", middle=middle), captures=True)
    assert told == [1, 2, 3, 4, 5][:num_told]


def test_batch_ahead_is_copied_behind_the_launch_while_there_are_graphs(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[str] = []
    replay, stage_ahead = Graph.replay, StagedFeed.stage_ahead
    monkeypatch.setattr(Graph, "replay", lambda graph: (did.append("launch"), replay(graph)))
    monkeypatch.setattr(StagedFeed, "stage_ahead", lambda *given: (did.append("copy"), stage_ahead(*given)))
    with opened(runs.write("max_iter: 9"), captures=True) as (solver, _):
        solver.step(6)
        assert did == ["copy", "copy", "copy", "launch", *["launch", "copy"] * 3]
        solver.iteration.close()
        did.clear()
        solver.net.forward()
        assert did == ["copy"]


def test_requests_of_a_captured_run_are_heard_in_the_same_iteration(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 9")
    with opened(path, captures=True) as (solver, recorder):

        def ask(solver: Solver) -> None:
            if solver.iter == 5:
                solver.request_snapshot()
            if solver.iter == 6:
                solver.request_stop()

        recorder.after = ask
        solver.solve()
        assert (solver.iter, solver.stopped_early) == (7, True)
    assert [iteration for iteration, _ in recorder.snapshots] == [6]


def test_ranks_capture_together_and_have_the_bits_of_those_that_do_not(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    join_nccl(monkeypatch, play_cupy(monkeypatch, num_devices=2))
    path = runs.write("max_iter: 7 iter_size: 2 dtrain_param { bucket_bytes: 256 }", middle=DROPOUT)

    def train(captures: bool) -> list[Outcome]:
        return run_ranks(2, lambda host: run(path, captures, communicator=NcclCommunicator(host)))

    mine, theirs = train(True), train(False)
    assert count(caplog, REPLAYED) == 2
    for left, right in zip(mine, theirs, strict=True):
        assert_same_run(left, right)
    assert mine[0].losses != mine[1].losses
