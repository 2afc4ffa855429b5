from __future__ import annotations

import logging
import re
from collections.abc import Callable

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.ranks import SEVERAL, WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import BATCH_NORM, Recorder, SmallRuns, opened, params_of, solve


def run_alone(path: str, after: Callable[[Solver], None] = lambda solver: None) -> Recorder:
    """Solve on this process alone."""
    recorder = Recorder(after)
    with opened(path, SingleCommunicator(), recorder) as solver:
        solver.solve()
    return recorder


def test_solve_runs_to_max_iter_and_tells_its_observers(runs: SmallRuns) -> None:
    recorder = run_alone(runs.write("max_iter: 3"))
    assert recorder.bounds == ["start at 0", "end at 3"]
    assert len(recorder.losses) == 3


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
    path = runs.write("max_iter: 6 average_loss: 3")
    recorder = run_alone(path, lambda solver: smoothed.append(solver.smoothed_loss))
    means = [np.mean(recorder.losses[max(0, i - 2) : i + 1]) for i in range(6)]
    np.testing.assert_allclose(smoothed, means, rtol=1e-12)


def test_learning_rate_and_current_step_follow_the_policy(runs: SmallRuns) -> None:
    seen = []
    path = runs.write('base_lr: 1 lr_policy: "multistep" gamma: 0.5 stepvalue: [1, 3]')
    with opened(path, SingleCommunicator()) as solver:
        for iteration in range(5):
            solver.iter = iteration
            seen.append((solver.current_step, solver.learning_rate))
    assert seen == [(0, 1), (1, 0.5), (1, 0.5), (2, 0.25), (2, 0.25)]


def test_epoch_counts_the_passes_of_all_ranks_over_the_records(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("max_iter: 7", batch_size=20)  # of 100 records

    def body(communicator: Communicator) -> list[int]:
        epochs: list[int] = []
        with opened(path, communicator, Recorder(lambda solver: epochs.append(solver.epoch))) as solver:
            solver.solve()
        return epochs

    assert on_ranks(SEVERAL, body) == [[20 * SEVERAL * (i + 1) // 100 for i in range(7)]] * SEVERAL


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


def test_solver_s_test_nets_share_the_params_of_its_net(runs: SmallRuns) -> None:
    path = runs.write("test_interval: 5 test_iter: [1, 1]", middle=BATCH_NORM)
    with opened(path, SingleCommunicator()) as solver:
        assert len(solver.test_nets) == 2
        for layer, blobs in solver.net.params.items():
            for i, blob in enumerate(blobs):
                blob.data[...] = 5
                for net in solver.test_nets:
                    assert (net.params[layer][i].data == 5).all()


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_test_all_averages_running_statistics_over_the_ranks(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
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


def test_solve_of_no_iterations_snapshots_shows_the_loss_and_tests(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write(
        'max_iter: 0 display: 1 test_interval: 1 test_iter: 1 snapshot_after_train: true lr_policy: "poly" power: 2'
    )
    with caplog.at_level(logging.INFO):
        recorder = run_alone(path)
    assert (recorder.losses, [iteration for iteration, _, _ in recorder.tests]) == ([], [0])
    assert recorder.snapshots == [(0, str(runs.state(0)))]
    assert any(message.startswith("Iteration 0, loss = ") for message in caplog.messages)


def test_step_clears_the_gradients_of_fixed_params_under_force_backward(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 3")
    net = runs.folder / "run.prototxt"
    net.write_text("force_backward: true " + net.read_text().replace("lr_mult: 1 ", "lr_mult: 0 "))
    with opened(path, SingleCommunicator()) as solver:
        fixed = solver.net.params["conv"][0]
        before = fixed.data.copy()
        fixed.diff[...] = 1e6
        solver.step(1)
        assert 0 < np.abs(fixed.diff).max() < 100
        np.testing.assert_array_equal(fixed.data, before)


# -- requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
@pytest.mark.parametrize("asked_at", [(3,), (3, 4)])
def test_request_stop_on_one_rank_stops_all_after_the_same_iteration(
    runs: SmallRuns, world_size: int, asked_at: tuple[int, ...], on_ranks: OnRanks
) -> None:
    path = runs.write("max_iter: 9 test_interval: 4 test_iter: 1 test_initialization: false")

    def body(communicator: Communicator) -> tuple[int, bool, int]:
        def ask(solver: Solver) -> None:
            if communicator.rank == world_size - 1 and solver.iter in asked_at:
                solver.request_stop()

        recorder = Recorder(ask)
        with opened(path, communicator, recorder) as solver:
            solver.solve()
            return solver.iter, solver.stopped_early, len(recorder.tests)

    assert on_ranks(world_size, body) == [(4, True, 0)] * world_size  # and the last test is left out


def test_request_stop_ends_with_the_snapshot_after_train(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 9 snapshot_after_train: true")
    recorder = run_alone(path, lambda solver: solver.request_stop() if solver.iter == 1 else None)
    assert recorder.snapshots == [(2, str(runs.state(2)))]
    assert runs.state(2).exists()


def test_solve_after_a_stop_goes_on(runs: SmallRuns) -> None:
    with opened(runs.write("max_iter: 4"), SingleCommunicator()) as solver:
        solver.request_stop()
        solver.solve()
        assert (solver.iter, solver.stopped_early) == (1, True)
        solver.solve()
        assert (solver.iter, solver.stopped_early) == (4, False)


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_request_snapshot_on_one_rank_writes_one_after_that_iteration(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
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


# -- snapshots and weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "written_at"),
    [
        ("snapshot: 2 snapshot_after_train: false", [2, 4]),
        ("snapshot: 2 snapshot_after_train: true", [2, 4, 5]),
        ("snapshot: 5 snapshot_after_train: true", [5]),
        ("snapshot_after_train: true", [5]),
        ("snapshot_after_train: false", []),
    ],
)
def test_solve_writes_snapshots_as_the_solver_says(
    runs: SmallRuns, fields: str, written_at: list[int]
) -> None:
    recorder = run_alone(runs.write(f"max_iter: 5 {fields}"))
    assert recorder.snapshots == [(iteration, str(runs.state(iteration))) for iteration in written_at]
    assert {state.name for state in runs.folder.glob("*.solverstate")} == {
        runs.state(iteration).name for iteration in written_at
    }


def test_solve_finds_out_first_whether_snapshots_can_be_written(runs: SmallRuns, on_ranks: OnRanks) -> None:
    (runs.folder / "file").touch()
    path = runs.write(f'snapshot: 5 snapshot_prefix: "{runs.folder}/file/x"')

    def body(communicator: Communicator) -> tuple[int, str]:
        with opened(path, communicator) as solver:
            with pytest.raises((UserError, AgreedFailure)) as caught:
                solver.solve()
            return solver.iter, str(caught.value)

    for iteration, message in on_ranks(SEVERAL, body):
        assert iteration == 0
        assert f"{runs.folder}/file" in message


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_load_weights_gives_every_rank_the_file_s_params(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    (trained,) = on_ranks(1, solve(runs.write("max_iter: 3 snapshot: 3", name="source")))
    path = runs.write("random_seed: 8")

    def body(communicator: Communicator) -> tuple[int, dict[str, np.ndarray]]:
        with opened(path, communicator) as solver:
            solver.load_weights([str(runs.folder / "source_iter_3.caffemodel")])
            return solver.iter, params_of(solver)

    for iteration, params in on_ranks(world_size, body):
        assert iteration == 0
        assert_equal(params, trained.params)


def test_load_weights_of_another_net_is_one_failure_on_all_ranks(runs: SmallRuns, on_ranks: OnRanks) -> None:
    on_ranks(1, solve(runs.write("max_iter: 1 snapshot: 1", name="source", num_classes=7)))
    weights, path = str(runs.folder / "source_iter_1.caffemodel"), runs.write()

    def body(communicator: Communicator) -> tuple[tuple[str, ...], int]:
        with opened(path, communicator) as solver:
            before = params_of(solver)
            with pytest.raises(AgreedFailure) as caught:
                solver.load_weights([weights])
            assert_equal(params_of(solver), before)
            return caught.value.problems, caught.value.exit_code

    first, *others = on_ranks(SEVERAL, body)
    (problem,), exit_code = first
    assert re.search(r'source_iter_1.caffemodel: param 0 of layer "ip" must be \(4, 144\)', problem)
    assert exit_code == 2
    assert all(other == first for other in others)


def assert_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name])


# -- making one --------------------------------------------------------------------------------------------


def test_solver_without_a_seed_draws_one_that_all_ranks_share(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path, seeds = runs.write("random_seed: -1"), []

    def body(communicator: Communicator) -> tuple[int, dict[str, np.ndarray]]:
        with opened(path, communicator) as solver:
            return solver.seed, params_of(solver)

    for _ in range(2):
        (seed, params), *others = on_ranks(SEVERAL, body)
        for other_seed, other_params in others:
            assert other_seed == seed
            assert_equal(other_params, params)
        seeds.append(seed)
    assert seeds[0] != seeds[1]


def test_solver_of_other_files_on_one_rank_is_refused_on_all(runs: SmallRuns, on_ranks: OnRanks) -> None:
    paths = [runs.write("max_iter: 20"), runs.write("max_iter: 21", name="other")]

    def body(communicator: Communicator) -> str:
        recipe = read_recipe(paths[min(communicator.rank, 1)])
        with pytest.raises(AgreedFailure) as caught:
            Solver(recipe, engine=create_engine("reference"), communicator=communicator)
        return str(caught.value)

    messages = on_ranks(SEVERAL, body)
    assert len(set(messages)) == 1
    assert messages[0].startswith("net and solver must be the same on all ranks, differs from rank 0")


def test_solver_with_mistakes_in_several_nets_names_them_all(runs: SmallRuns) -> None:
    tail = """layer { name: "a" type: "Convolution" bottom: "h" top: "a" include { phase: TRAIN } }
        layer { name: "b" type: "Convolution" bottom: "h" top: "b" include { phase: TEST } }"""
    path = runs.write("test_interval: 1 test_iter: 1", tail=tail)
    with pytest.raises(UserError) as caught, opened(path, SingleCommunicator()):
        pass
    assert [re.findall('layer "(.)"', problem) for problem in caught.value.problems] == [["a"], ["b"]]
