"""Updates piece by piece, on several threads and without a trace in the diffs: the same bits each time."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from dtrain.core.solver import updater
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.dist.single import SingleCommunicator
from tests.core.net_builder import inputs
from tests.core.solver.small_runs import SmallRuns, opened, params_of
from tests.core.solver.trials import DWIDE, DWIDE_B, WIDE, Trial, make_trial, results_of


@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_in_pieces_is_the_same_as_on_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for piece_size in (1000, 3):
        monkeypatch.setattr(updater, "PIECE_SIZE", piece_size)
        trial = make_trial(f'type: "{name}" weight_decay: 0.5', text=WIDE, fill=False)
        results.append(results_of(trial))
    for whole, pieced in zip(*results, strict=True):
        np.testing.assert_array_equal(whole, pieced)


@pytest.mark.parametrize(
    "fields", ["", "weight_decay: 0.5 iter_size: 3", "weight_decay: 0.5 clip_gradients: 0.7"]
)
@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_update_of_params_that_lie_together_is_the_same_as_of_each_alone(name: str, fields: str) -> None:
    text = inputs(x=(1, 16))
    for below, top in ("xa", "ab", "bc"):
        text += f'layer {{ name: "{top}" type: "InnerProduct" bottom: "{below}" top: "{top}" '
        text += "inner_product_param { num_output: 16 } }"
    results = []
    for apart in (False, True):
        trial = make_trial(f'type: "{name}" momentum: 0.5 {fields}', text=text, fill=False)
        params, random = trial.updater.params, np.random.default_rng(4)
        for iteration in range(3):
            for param in params:
                param.blob.diff[...] = random.standard_normal(param.blob.shape)
            trial.updater.begin(iteration, 2)
            for some in [[param] for param in params] if apart else [params]:
                trial.updater.update(some)
        blobs = [param.blob for param in params]
        results.append([array for blob in blobs for array in (blob.data, blob.diff)] + trial.updater.history)
    for together, alone in zip(*results, strict=True):
        np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("fields", ["weight_decay: 0.5 iter_size: 3", "clip_gradients: 0.7"])
@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_on_any_number_of_threads_is_the_same_to_the_last_bit(
    name: str, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 3)
    monkeypatch.setattr(updater, "SHARED_SIZE", 0)
    results = [
        results_of(make_trial(f'type: "{name}" {fields}', text=WIDE, fill=False, num_threads=num_threads))
        for num_threads in (1, 2, 3, 7)
    ]
    assert np.any(results[0][0])
    for of_several in results[1:]:
        for one, other in zip(results[0], of_several, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("fields", ["", "weight_decay: 0.5 iter_size: 3", "clip_gradients: 0.7"])
@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_that_need_not_show_changes_reads_the_diffs_and_makes_the_same_changes(
    name: str, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 3)
    results = []
    for shows_changes in (True, False):
        trial = make_trial(f'type: "{name}" {fields}', text=WIDE, fill=False)
        trial.updater.shows_changes = shows_changes
        results.append(results_of(trial))
    (*shown, dw, db), (*hidden, dw_hidden, db_hidden) = (
        [result[0], result[1], *result[4:], result[2], result[3]] for result in results
    )
    for one, other in zip(shown, hidden, strict=True):
        np.testing.assert_array_equal(one, other)
    if UPDATE_RULES[name].spares_diff:
        np.testing.assert_array_equal(dw_hidden, DWIDE)
        np.testing.assert_array_equal(db_hidden, DWIDE_B)
    assert not np.array_equal(dw, DWIDE)
    assert not np.array_equal(db, DWIDE_B)


def meet_in_apply(trial: Trial, monkeypatch: pytest.MonkeyPatch, num_threads: int) -> None:
    """Let the rule wait until so many threads are in it at once."""
    meeting, apply = threading.Barrier(num_threads), trial.updater.rule.apply

    def wait_and_apply(*args: object) -> None:
        meeting.wait(timeout=60)
        apply(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(trial.updater.rule, "apply", wait_and_apply)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("worker")}


@pytest.mark.parametrize(("name", "piece_size", "num_threads"), [("SGD", 5, 4), ("LARS", 1000, 2)])
def test_apply_of_enough_values_shares_the_pieces_or_params_among_threads(
    name: str, piece_size: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", piece_size)
    monkeypatch.setattr(updater, "SHARED_SIZE", 40)  # of w and b together
    monkeypatch.setenv("OMP_NUM_THREADS", str(num_threads))
    trial = make_trial(f'type: "{name}"', text=WIDE, fill=False)
    others = workers()
    meet_in_apply(trial, monkeypatch, num_threads)  # 35 / 5 + 5 / 5 = 8 pieces, or 2 params
    trial.update(DWIDE, DWIDE_B)
    assert len(workers() - others) == num_threads - 1
    np.testing.assert_allclose(trial.b, -0.5 * DWIDE_B, rtol=1e-6)  # one axis: LARS treats it as SGD does
    trial.updater.close()
    assert workers() <= others


def test_solver_on_several_threads_takes_the_same_way_and_ends_them(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 7)
    monkeypatch.setattr(updater, "SHARED_SIZE", 100)
    path, others, trained = runs.write("clip_gradients: 0.5"), workers(), []
    for num_threads in (1, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(num_threads))
        with opened(path, SingleCommunicator()) as solver:
            solver.step(4)
            trained.append([*params_of(solver).values(), *solver.updater.history])
            assert bool(workers() - others) == (num_threads > 1)
        assert workers() <= others
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


def test_apply_of_few_values_starts_no_thread() -> None:
    others = workers()
    trial = make_trial("clip_gradients: 1", text=WIDE, fill=False, num_threads=4)
    trial.update(DWIDE, DWIDE_B)
    assert workers() <= others


def test_updater_that_nobody_holds_ends_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 5)
    monkeypatch.setattr(updater, "SHARED_SIZE", 0)
    others = workers()
    trial = make_trial("", text=WIDE, fill=False, num_threads=3)
    trial.update(DWIDE, DWIDE_B)
    started = workers() - others
    assert started
    del trial
    for thread in started:
        thread.join(timeout=60)
        assert not thread.is_alive()
