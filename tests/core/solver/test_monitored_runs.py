"""Whole runs whose tests decide: rates that fall, runs that end early, snapshots that are kept or removed."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import write_solverstate
from dtrain.core.snapshots.manifest import read_manifest
from dtrain.core.snapshots.solverstate import SolverState, read_solverstate
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.ranks import SEVERAL, OnRanks, is_first, wait_for_all
from tests.core.solver.small_runs import Recorder, SmallRuns, assert_same_bits, opened, params_of, solve

# an output is never better than the first by this much
NEVER_BETTER = 'monitor { output: "loss" min_delta: 1000 }'
TESTED = "test_interval: 2 test_iter: 2"


def plateau(more: str = "") -> str:
    """Return a solver whose rate falls after every second test."""
    extra = f"dtrain_param {{ plateau_patience: 2 {NEVER_BETTER} {more} }}"
    return f'lr_policy: "plateau" gamma: 0.5 base_lr: 0.5 {TESTED} {extra}'


def kept(runs: SmallRuns, name: str = "run") -> list[int]:
    """Return the iterations of the snapshots that are there, each of which must be whole."""
    states = {int(path.stem.split("_")[-1]) for path in runs.folder.glob(f"{name}_iter_*.solverstate")}
    manifests = {
        int(path.stem.split("_")[-1].split(".")[0]) for path in runs.folder.glob(f"{name}_iter_*.json")
    }
    assert states == manifests
    return sorted(states)


# -- plateau -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, SEVERAL])
@pytest.mark.parametrize("where", ["", "test_on_rank_0: true"])
def test_solve_on_a_plateau_lowers_the_rate_on_all_ranks(
    runs: SmallRuns, world_size: int, where: str, on_ranks: OnRanks
) -> None:
    path = runs.write(f"{plateau(where)} max_iter: 10 snapshot: 9")

    def body(communicator: Communicator) -> list[float]:
        rates: list[float] = []
        with opened(
            path, communicator, Recorder(lambda solver: rates.append(solver.learning_rate))
        ) as solver:
            solver.solve()
        return rates

    # tests at 0, 2, 4 (the second without an improvement), 6, 8, and at the end; rates[k] is that of update k + 1
    expected = [0.5] * 4 + [0.25] * 4 + [0.125] * 2
    assert on_ranks(world_size, body) == [expected] * world_size
    assert read_solverstate(runs.state(9)).current_step == 2


def test_restore_of_a_state_without_manifest_takes_its_reductions(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write(f"{plateau()} max_iter: 5 snapshot: 5")
    on_ranks(1, solve(path))
    state = read_solverstate(runs.state(5))
    foreign = runs.folder / "foreign_iter_5.solverstate"
    if is_first():
        write_solverstate(foreign, SolverState(5, state.learned_net, 3, state.history))
    wait_for_all()

    def body(communicator: Communicator) -> tuple[int, float]:
        with opened(path, communicator) as solver:
            solver.restore(str(foreign))
            return solver.current_step, solver.learning_rate

    assert on_ranks(SEVERAL, body) == [(3, 0.0625)] * SEVERAL


# -- early stopping ------------------------------------------------------------------------------------------

STOPPING = f"{TESTED} dtrain_param {{ early_stopping_patience: 2 {NEVER_BETTER} }}"


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_solve_ends_as_usual_when_the_monitor_gives_up(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write(f"{STOPPING} max_iter: 100 snapshot_after_train: true")

    def body(communicator: Communicator) -> tuple[int, bool, list[int]]:
        recorder = Recorder()
        with opened(path, communicator, recorder) as solver:
            solver.solve()
            assert recorder.bounds == ["start at 0", "end at 4"]
            return solver.iter, solver.stopped_early, [iteration for iteration, _, _ in recorder.tests]

    with caplog.at_level(logging.INFO):
        assert on_ranks(world_size, body) == [(4, False, [0, 2, 4])] * world_size
    assert kept(runs) == [4]
    endings = {message for message in caplog.messages if message.startswith("Ending at iteration 4")}
    assert len(endings) == is_first() or world_size > 1
    for ending in endings:
        assert ": loss of test net #0 has not improved in 2 tests (best: " in ending
        assert ending.endswith(" at iteration 0)")
        assert "Optimization Done." in caplog.messages


def test_solve_of_a_run_that_was_ended_early_ends_again(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write(f"{STOPPING} max_iter: 100 snapshot_after_train: true")
    (ended,) = on_ranks(1, solve(path))
    (resumed,) = on_ranks(1, solve(path, lambda solver: solver.resume_newest()))
    assert resumed.losses == []
    assert_same_bits(resumed, ended)
    patient = runs.write(
        STOPPING.replace("patience: 2", "patience: 3") + "max_iter: 100 snapshot_after_train: true"
    )
    (resumed,) = on_ranks(1, solve(patient, lambda solver: solver.resume_newest()))
    assert resumed.iter == 6


def test_step_goes_on_where_solve_would_end(runs: SmallRuns) -> None:
    with opened(runs.write(STOPPING), SingleCommunicator()) as solver:
        solver.step(10)
        assert solver.monitor.has_given_up
        assert solver.iter == 10


# -- keep_best and keep_last -----------------------------------------------------------------------------------


def scored(runs: SmallRuns, scores: list[float], fields: str, start: int = 0) -> Recorder:
    """Solve from iteration `start` on, with tests every 2 iterations that give `scores`; the weights go their way."""
    path = runs.write(f"{TESTED} max_iter: {start + 2 * (len(scores) - 1)} {fields}")
    recorder = Recorder()
    with opened(path, SingleCommunicator(), recorder) as solver:
        if start:
            solver.restore(str(runs.state(start)))
        real, given = solver.monitor._score, iter(scores)
        solver.monitor._score = lambda results: [real(results), next(given)][1]  # type: ignore[method-assign]
        solver.solve()
    return recorder


@pytest.mark.parametrize(
    ("fields", "kept_at"),
    [
        ("dtrain_param { keep_best: 1 }", [8]),
        ("dtrain_param { keep_best: 2 }", [4, 8]),
        ("dtrain_param { keep_best: 9 }", [0, 4, 8]),
        ("snapshot: 3 dtrain_param { keep_best: 1 }", [3, 6, 8, 9]),
        ("snapshot: 3 dtrain_param { keep_best: 1 keep_last: 1 }", [8, 9]),
        ("snapshot: 3 dtrain_param { keep_best: 1 keep_last: 2 }", [6, 8, 9]),
        ("snapshot: 3 dtrain_param { keep_last: 2 }", [6, 9]),
        # 4 and 8 are due as well: outdone, 4 is one of the others
        ("snapshot: 4 dtrain_param { keep_best: 1 }", [4, 8]),
        ("snapshot: 2 dtrain_param { keep_best: 1 keep_last: 1 }", [8, 10]),
        ("snapshot: 2 dtrain_param { keep_best: 2 keep_last: 1 }", [4, 8, 10]),
        ("snapshot: 2 dtrain_param { keep_last: 1 ema_decay: 0.5 }", [10]),
        ("snapshot_after_train: true snapshot: 0 dtrain_param { keep_best: 1 keep_last: 1 }", [8, 10]),
    ],
)
def test_solve_keeps_the_best_and_the_last_snapshots(
    runs: SmallRuns, fields: str, kept_at: list[int]
) -> None:
    scored(runs, [5, 6, 4, 4, 3, 9], fields)
    assert kept(runs) == kept_at


def test_best_snapshot_of_an_iteration_that_was_due_is_marked_and_not_written_anew(runs: SmallRuns) -> None:
    recorder = scored(runs, [5, 4, 6], "snapshot: 2 dtrain_param { keep_best: 1 }")
    assert [iteration for iteration, _ in recorder.snapshots] == [0, 2, 4]
    marked, other = (
        read_manifest(str(runs.state(iteration)).replace(".solverstate", ".manifest.json"))
        for iteration in (2, 4)
    )
    assert (marked.is_best, marked.is_due, marked.monitor.best_iterations) == (True, True, (0, 2))
    assert (other.is_best, other.is_due) == (False, True)


def test_best_snapshot_that_a_run_was_resumed_from_is_marked_and_not_written_anew(runs: SmallRuns) -> None:
    fields = "snapshot: 2 dtrain_param { keep_best: 9 }"
    scored(runs, [5, 6], fields)
    recorder = scored(runs, [4, 6], fields, start=2)
    assert [iteration for iteration, _ in recorder.snapshots] == [4]
    manifest = read_manifest(str(runs.state(2)).replace(".solverstate", ".manifest.json"))
    assert (manifest.is_best, manifest.monitor.best_iterations) == (True, (0, 2))


def test_best_at_the_very_end_has_the_place_that_a_due_one_has(runs: SmallRuns) -> None:
    # the last loss, which display asks for, reads one more batch before the last test
    options = "display: 2 average_loss: 3"
    scored(runs, [5, 4], f"{options} dtrain_param {{ keep_best: 1 }}")
    best = read_manifest(str(runs.state(2)).replace(".solverstate", ".manifest.json"))
    scored(runs, [5, 4], f"{options} snapshot: 2")
    due = read_manifest(str(runs.state(2)).replace(".solverstate", ".manifest.json"))
    assert best.monitor.best_iterations == (0, 2)
    ignored = {"monitor": due.monitor, "files": {}, "is_best": False, "is_due": True}
    assert replace(best, **ignored) == replace(due, **ignored)  # type: ignore[arg-type]


def test_solve_keeps_no_snapshot_of_another_kind_or_run(runs: SmallRuns) -> None:
    foreign = ["run_iter_1.caffemodel", "run_iter_1.solverstate", "run_iter_50.txt", "ran_iter_1.caffemodel"]
    for name in foreign:
        Path(runs.folder / name).touch()
    scored(runs, [5, 4, 3], "snapshot: 1 dtrain_param { keep_best: 1 keep_last: 1 }")
    assert all((runs.folder / name).exists() for name in foreign[2:])
    assert kept(runs) == [2, 4]  # 4 is the best, 2 the last of the others


def test_solve_leaves_snapshots_of_caffe_s_own_where_they_are(runs: SmallRuns) -> None:
    with opened(runs.write("max_iter: 1 snapshot: 1"), SingleCommunicator()) as solver:
        solver.solve()
    (runs.folder / "run_iter_1.manifest.json").unlink()
    for ending in (
        "caffemodel",
        "solverstate",
    ):  # of an iteration that the next run passes without a snapshot
        (runs.folder / f"run_iter_1.{ending}").rename(runs.folder / f"run_iter_3.{ending}")
    scored(runs, [5, 4, 3], "snapshot: 2 dtrain_param { keep_last: 1 }")
    assert (runs.folder / "run_iter_3.caffemodel").exists()
    assert not (runs.folder / "run_iter_2.caffemodel").exists()


# -- averages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_tests_with_ema_decay_are_of_the_averages(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    path = runs.write(f"{TESTED} max_iter: 6 snapshot: 6 dtrain_param {{ ema_decay: 0.8 }}")
    plain = runs.write(f"{TESTED} max_iter: 6", name="plain")
    averaged, weights = runs.folder / "run_iter_6.ema.caffemodel", runs.folder / "run_iter_6.caffemodel"
    outcomes = on_ranks(world_size, solve(path))

    def score(file: Path) -> object:
        with opened(plain, SingleCommunicator()) as solver:
            solver.load_weights([str(file)])
            return solver.test_all()[0]

    for outcome in outcomes:
        assert outcome.tests[-1][2] == score(averaged)
        assert outcome.tests[-1][2] != score(weights)


def test_tests_of_averages_do_not_change_the_training(runs: SmallRuns, on_ranks: OnRanks) -> None:
    (plain,) = on_ranks(1, solve(runs.write("max_iter: 6", name="plain")))
    (averaged,) = on_ranks(1, solve(runs.write(f"{TESTED} max_iter: 6 dtrain_param {{ ema_decay: 0.8 }}")))
    assert averaged.losses == plain.losses
    for name, values in plain.params.items():
        np.testing.assert_array_equal(averaged.params[name], values)


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_snapshots_in_hdf5_keep_averages_too(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks, caplog: pytest.LogCaptureFixture
) -> None:
    options = "dtrain_param { ema_decay: 0.8 keep_last: 1 }"
    path = runs.write(f"max_iter: 6 snapshot: 2 snapshot_format: HDF5 type: 'Adam' base_lr: 0.001 {options}")
    with caplog.at_level(logging.INFO):
        undisturbed = on_ranks(world_size, solve(path))
    if is_first():
        assert f"Snapshotting to HDF5 file {runs.folder}/run_iter_6.caffemodel.h5" in caplog.messages
    names = sorted(file.name for file in runs.folder.glob("run_iter_*"))
    endings = ["caffemodel.h5", "ema.caffemodel.h5", "manifest.json", "solverstate.h5"]
    assert names == [f"run_iter_6.{ending}" for ending in endings]
    resumed = on_ranks(world_size, solve(path, lambda solver: solver.resume_newest()))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert_same_bits(mine, theirs)


def test_restore_of_averages_without_ema_decay_leaves_them(
    runs: SmallRuns, on_ranks: OnRanks, caplog: pytest.LogCaptureFixture
) -> None:
    (source,) = on_ranks(1, solve(runs.write("max_iter: 2 snapshot: 2 dtrain_param { ema_decay: 0.8 }")))
    with caplog.at_level(logging.INFO), opened(runs.write(), SingleCommunicator()) as solver:
        solver.restore(str(runs.state(2)))
        for name, values in params_of(solver).items():
            np.testing.assert_array_equal(values, source.params[name])
    path = runs.state(2)
    assert f"The averaged weights of {path} are left, since the solver has no ema_decay" in caplog.messages


def test_restore_without_averages_begins_to_average_anew(
    runs: SmallRuns, on_ranks: OnRanks, caplog: pytest.LogCaptureFixture
) -> None:
    on_ranks(1, solve(runs.write("max_iter: 2 snapshot: 2")))
    path = runs.write("dtrain_param { ema_decay: 0.8 }")
    with caplog.at_level(logging.INFO), opened(path, SingleCommunicator()) as solver:
        solver.step(5)
        solver.restore(str(runs.state(2)))
        assert solver.average.num_updates == 0
        solver.step(1)
        weights = solver.arena.data.copy()
        with solver.average.shown():
            np.testing.assert_array_equal(solver.arena.data, weights)
    assert f"{runs.state(2)} has no averaged weights: averages begin with the next update" in caplog.messages


# -- refused -------------------------------------------------------------------------------------------------


def test_solver_of_a_mistaken_monitor_names_its_line(runs: SmallRuns) -> None:
    path = runs.write(f'{TESTED}\ndtrain_param {{ keep_best: 1\n  monitor {{ output: "los" }} }}')
    with pytest.raises(UserError) as caught, opened(path, SingleCommunicator()):
        pass
    (problem,) = caught.value.problems
    num_lines = len(Path(path).read_text().splitlines())
    assert problem.startswith(
        f'{path}:{num_lines}: monitor\'s output must be an output, got "los"; did you mean "loss"?; '
    )
