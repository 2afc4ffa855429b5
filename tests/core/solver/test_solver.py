from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.graph.recipe import read_recipe
from dtrain.core.snapshots import read_caffemodel
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.ranks import WORLD_SIZES, on_ranks
from tests.core.solver.small_runs import (
    BATCH_NORM,
    RANDOM_DATA,
    Outcome,
    Recorder,
    SmallRuns,
    assert_same_bits,
    interleave,
    opened,
    outcome_of,
    params_of,
    solve,
)

GLOBAL_BATCH_SIZE = 64


def run_alone(path: str, after: Callable[[Solver], None] = lambda solver: None) -> Recorder:
    """Solve on one rank of this process."""
    recorder = Recorder(after)
    with opened(path, SingleCommunicator(), recorder) as solver:
        solver.solve()
    return recorder


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize(
    ("shuffle", "transform"), [(False, ""), (True, RANDOM_DATA)], ids=["in file order", "shuffled"]
)
def test_solve_on_any_number_of_ranks_takes_the_same_way(
    runs: SmallRuns, world_size: int, shuffle: bool, transform: str
) -> None:
    paths = {
        n: runs.write(name=f"on{n}", batch_size=GLOBAL_BATCH_SIZE // n, shuffle=shuffle, transform=transform)
        for n in (1, world_size)
    }
    (alone,), shared = (on_ranks(n, solve(path)) for n, path in paths.items())
    losses = np.mean([outcome.losses for outcome in shared], axis=0)
    np.testing.assert_allclose(losses, alone.losses, rtol=1e-4)
    assert losses[-1] < 0.8 * losses[0]  # it does learn
    assert len(losses) == 20
    for outcome in shared:
        for name, values in alone.params.items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(outcome.params[name], values, rtol=1e-4, atol=1e-4 * scale)
    for mine, theirs in zip(interleave(shared), (alone.next_data, alone.next_label), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_solve_leaves_the_same_bits_on_every_rank(runs: SmallRuns, world_size: int) -> None:
    first, *others = on_ranks(world_size, solve(runs.write("max_iter: 5")))
    for other in others:
        for name, values in first.params.items():
            np.testing.assert_array_equal(other.params[name], values)


@pytest.mark.parametrize("world_size", [1, WORLD_SIZES[0]])
def test_iter_size_with_smaller_batches_takes_the_same_way(runs: SmallRuns, world_size: int) -> None:
    whole = runs.write("max_iter: 8", name="whole", batch_size=12)
    thirds = runs.write("max_iter: 8 iter_size: 3", name="thirds", batch_size=4)
    expected, got = (on_ranks(world_size, solve(path)) for path in (whole, thirds))
    for key in ("losses",):
        means = [np.mean([getattr(outcome, key) for outcome in outcomes], axis=0) for outcomes in (got, expected)]
        np.testing.assert_allclose(*means, rtol=1e-4)
    for name, values in expected[0].params.items():
        np.testing.assert_allclose(got[0].params[name], values, rtol=1e-4, atol=1e-5)


def test_step_trains_so_many_iterations_and_restarts_the_smoothed_loss(runs: SmallRuns) -> None:
    recorder = Recorder()
    with opened(runs.write("average_loss: 4"), SingleCommunicator(), recorder) as solver:
        solver.step(3)
        assert solver.smoothed_loss == pytest.approx(np.mean(recorder.losses))
        solver.step(2)
        assert solver.iter == 5
        assert solver.smoothed_loss == pytest.approx(np.mean(recorder.losses[3:]))
    assert recorder.bounds == []


def test_smoothed_loss_is_the_mean_of_the_last_ones(runs: SmallRuns) -> None:
    smoothed: list[float] = []
    recorder = run_alone(
        runs.write("max_iter: 6 average_loss: 3"), lambda solver: smoothed.append(solver.smoothed_loss)
    )
    means = [np.mean(recorder.losses[max(0, i - 2) : i + 1]) for i in range(6)]
    np.testing.assert_allclose(smoothed, means, rtol=1e-12)


def test_learning_rate_and_current_step_follow_the_policy(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 1")
    text = Path(path).read_text().replace('"inv" gamma: 0.01 power: 0.75', '"multistep" gamma: 0.5 stepvalue: [1, 3]')
    Path(path).write_text(text)
    with opened(path, SingleCommunicator()) as solver:
        seen = []
        for iteration in range(5):
            solver.iter = iteration
            seen.append((solver.current_step, solver.learning_rate / solver.param.base_lr))
    assert seen == [(0, 1), (1, 0.5), (1, 0.5), (2, 0.25), (2, 0.25)]


def test_epoch_counts_the_passes_of_all_ranks_over_the_records(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 7", batch_size=20)  # of 100 records
    epochs: list[list[int]] = on_ranks(WORLD_SIZES[0], lambda c: epochs_of(path, c))
    size = WORLD_SIZES[0]
    assert epochs == [[20 * size * (i + 1) // 100 for i in range(7)]] * size


def epochs_of(path: str, communicator: Communicator) -> list[int]:
    epochs: list[int] = []
    with opened(path, communicator, Recorder(lambda solver: epochs.append(solver.epoch))) as solver:
        solver.solve()
    return epochs


# -- tests on the way --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "tested_at"),
    [
        ("max_iter: 6 test_interval: 2", [0, 2, 4, 6]),
        ("max_iter: 5 test_interval: 2", [0, 2, 4]),
        ("max_iter: 6 test_interval: 2 test_initialization: false", [2, 4, 6]),
        ("max_iter: 3 test_interval: 10", [0]),
        ("max_iter: 3 test_interval: 10 test_initialization: false", []),
    ],
)
def test_solve_tests_every_test_interval(runs: SmallRuns, fields: str, tested_at: list[int]) -> None:
    recorder = run_alone(runs.write(f"{fields} test_iter: 2"))
    assert [iteration for iteration, _, _ in recorder.tests] == tested_at


def test_solve_without_test_nets_never_tests(runs: SmallRuns) -> None:
    assert run_alone(runs.write("max_iter: 2")).tests == []


def test_solve_tells_its_observers_start_and_end(runs: SmallRuns) -> None:
    assert run_alone(runs.write("max_iter: 3")).bounds == ["start at 0", "end at 3"]


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_test_all_averages_running_statistics_over_the_ranks(runs: SmallRuns, world_size: int) -> None:
    path = runs.write("max_iter: 3", middle=BATCH_NORM)

    def body(communicator: Communicator) -> tuple[list[np.ndarray], list[np.ndarray]]:
        with opened(path, communicator) as solver:
            solver.solve()
            statistics = [blob.data for blob in solver.net.params["bn"]]
            before = [values.copy() for values in statistics]
            solver.test_all()
            return before, [values.copy() for values in statistics]

    ranks = on_ranks(world_size, body)
    for i in range(3):
        own = np.array([before[i] for before, _ in ranks])
        assert i == 2 or (own[0] != own[1]).any()  # each saw batches of its own; the factor is a count
        for _, after in ranks:
            np.testing.assert_allclose(after[i], own.mean(axis=0), rtol=1e-6)


# -- requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
@pytest.mark.parametrize("asks_again", [False, True])
def test_request_stop_on_one_rank_stops_all_after_the_same_iteration(
    runs: SmallRuns, world_size: int, asks_again: bool
) -> None:
    path = runs.write("max_iter: 9 display: 9 test_interval: 9 test_iter: 1 test_initialization: false")

    def body(communicator: Communicator) -> tuple[int, bool, int]:
        def ask(solver: Solver) -> None:
            if communicator.rank == world_size - 1 and solver.iter in ((3, 4) if asks_again else (3,)):
                solver.request_stop()

        recorder = Recorder(ask)
        with opened(path, communicator, recorder) as solver:
            solver.solve()
            return solver.iter, solver.stopped_early, len(recorder.tests)

    assert on_ranks(world_size, body) == [(4, True, 0)] * world_size


def test_solve_after_a_stop_goes_on(runs: SmallRuns) -> None:
    with opened(runs.write("max_iter: 4"), SingleCommunicator()) as solver:
        solver.request_stop()
        solver.solve()
        assert (solver.iter, solver.stopped_early) == (1, True)
        solver.solve()
        assert (solver.iter, solver.stopped_early) == (4, False)


@pytest.mark.parametrize("world_size", [1, WORLD_SIZES[0]])
def test_request_snapshot_on_one_rank_writes_one_after_that_iteration(
    runs: SmallRuns, world_size: int
) -> None:
    path = runs.write("max_iter: 5")

    def body(communicator: Communicator) -> list[tuple[int, str]]:
        def ask(solver: Solver) -> None:
            if communicator.rank == world_size - 1 and solver.iter == 2:
                solver.request_snapshot()

        recorder = Recorder(ask)
        with opened(path, communicator, recorder) as solver:
            solver.solve()
        return recorder.snapshots

    assert on_ranks(world_size, body) == [[(3, str(runs.state(3)))]] * world_size
    assert [state.name for state in runs.folder.glob("*.solverstate")] == ["run_iter_3.solverstate"]


# -- snapshots on the way, weights -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "written_at"),
    [
        ("snapshot: 2", [2, 4]),
        ("snapshot: 2 snapshot_after_train: true", [2, 4, 5]),
        ("snapshot: 5 snapshot_after_train: true", [5]),
        ("snapshot_after_train: true", [5]),
        ("", []),
    ],
)
def test_solve_writes_snapshots_as_the_solver_says(
    runs: SmallRuns, fields: str, written_at: list[int]
) -> None:
    path = runs.write("max_iter: 5")
    text = Path(path).read_text()
    Path(path).write_text(text.replace("snapshot_after_train: false", fields or "snapshot_after_train: false"))
    if "after_train" not in fields:
        Path(path).write_text(Path(path).read_text() + " snapshot_after_train: false")
    assert [iteration for iteration, _ in run_alone(path).snapshots] == written_at
    written = {int(re.findall(r"\d+", state.name)[0]) for state in runs.folder.glob("*.solverstate")}
    assert written == set(written_at)


def test_solve_finds_out_first_whether_snapshots_can_be_written(runs: SmallRuns) -> None:
    (runs.folder / "file").touch()
    path = runs.write("max_iter: 5 snapshot: 5", name="file/run2" if False else "run")
    Path(path).write_text(Path(path).read_text().replace(str(runs.folder / "run") + '" snap', str(runs.folder / "file" / "x") + '" snap'))
    recorder = Recorder()
    with opened(path, SingleCommunicator(), recorder) as solver, pytest.raises(UserError, match="file"):
        solver.solve()
    assert recorder.losses == []


@pytest.mark.parametrize("world_size", [1, WORLD_SIZES[0]])
def test_load_weights_gives_every_rank_the_file_s_params(runs: SmallRuns, world_size: int) -> None:
    trained = on_ranks(1, solve(runs.write("max_iter: 3 snapshot: 3", name="source")))[0]
    path = runs.write("random_seed: 8".replace("random_seed: 8", ""))

    def body(communicator: Communicator) -> dict[str, np.ndarray]:
        with opened(path, communicator) as solver:
            solver.load_weights([str(runs.folder / "source_iter_3.caffemodel")])
            assert solver.iter == 0
            return params_of(solver)

    for params in on_ranks(world_size, body):
        for name, values in trained.params.items():
            np.testing.assert_array_equal(params[name], values)


def test_load_weights_of_another_net_is_one_failure_on_all_ranks(runs: SmallRuns) -> None:
    on_ranks(1, solve(runs.write("max_iter: 1 snapshot: 1", name="source", num_classes=7)))
    weights, path = str(runs.folder / "source_iter_1.caffemodel"), runs.write()

    def body(communicator: Communicator) -> tuple[str, ...]:
        with opened(path, communicator) as solver:
            before = params_of(solver)
            with pytest.raises(AgreedFailure) as caught:
                solver.load_weights([weights])
            assert_params_equal(params_of(solver), before)
            assert caught.value.exit_code == 2
            return caught.value.problems

    first, *others = on_ranks(WORLD_SIZES[0], body)
    assert len(first) == 1
    assert re.search(r'source_iter_1.caffemodel: param 0 of layer "ip" must be \(4, 144\)', first[0])
    assert all(other == first for other in others)


def assert_params_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name])


# -- making one --------------------------------------------------------------------------------------------


def test_solver_without_a_seed_has_one_that_all_ranks_share(runs: SmallRuns) -> None:
    path = runs.write()
    text = Path(path).read_text().replace("random_seed: 3", "")
    seeds = []
    for name in ("a", "b"):
        other = runs.folder / f"{name}.prototxt"
        other.write_text(text)

        def body(communicator: Communicator, path: str = str(other)) -> tuple[int, dict[str, np.ndarray]]:
            with opened(path, communicator) as solver:
                return solver.seed, params_of(solver)

        ranks = on_ranks(WORLD_SIZES[0], body)
        assert len({seed for seed, _ in ranks}) == 1
        for _, params in ranks[1:]:
            assert_params_equal(params, ranks[0][1])
        seeds.append(ranks[0][0])
    assert seeds[0] != seeds[1]


def test_solver_of_other_files_on_one_rank_is_refused_on_all(runs: SmallRuns) -> None:
    paths = [runs.write(f"max_iter: {20 + i}", name=f"r{min(i, 1)}") for i in range(2)]

    def body(communicator: Communicator) -> str:
        recipe = read_recipe(paths[min(communicator.rank, 1)])
        with pytest.raises(AgreedFailure) as caught:
            Solver(recipe, engine=create_engine("reference"), communicator=communicator)
        return str(caught.value)

    messages = on_ranks(WORLD_SIZES[0], body)
    assert len(set(messages)) == 1
    assert messages[0].startswith("net and solver must be the same on all ranks")


def test_solver_of_an_unknown_type_names_the_file(runs: SmallRuns) -> None:
    path = runs.write()
    Path(path).write_text(Path(path).read_text().replace('"SGD"', '"SGDD"'))
    with pytest.raises(UserError, match='^' + re.escape(path) + r': unknown solver type "SGDD"; did you mean "SGD"'):
        Solver(read_recipe(path), engine=create_engine("reference"), communicator=SingleCommunicator())


def test_solver_s_test_nets_share_the_params_of_its_net(runs: SmallRuns) -> None:
    path = runs.write("test_interval: 5 test_iter: [1, 1]")
    with opened(path, SingleCommunicator()) as solver:
        solver.net.params["ip"][0].data[...] = 5
        assert len(solver.test_nets) == 2
        for net in solver.test_nets:
            assert (net.params["ip"][0].data == 5).all()


def test_snapshot_diff_keeps_the_gradients(runs: SmallRuns) -> None:
    with opened(runs.write("snapshot_diff: true"), SingleCommunicator()) as solver:
        solver.step(1)
        solver.net.params["ip"][0].diff[...] = 4
        solver.snapshot()
        solver.keeper.finish()
    assert {layer.name for layer in read_caffemodel(runs.folder / "run_iter_1.caffemodel")} >= {"conv", "ip"}


__all__ = ["Outcome", "assert_same_bits", "outcome_of"]
