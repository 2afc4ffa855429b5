"""Snapshots and resuming: what comes after is, to the last bit, what would have come without a stop."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots import write_solverstate
from dtrain.core.snapshots.manifest import read_manifest
from dtrain.core.snapshots.solverstate import SolverState
from dtrain.core.solver.keeper import snapshot_prefix
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from dtrain.dist.single import SingleCommunicator
from dtrain.proto import caffe_pb2
from tests.core.solver.ranks import SEVERAL, WORLD_SIZES, OnRanks, is_first, wait_for_all
from tests.core.solver.small_runs import (
    BATCH_NORM,
    DROPOUT,
    RANDOM_DATA,
    SmallRuns,
    assert_same_bits,
    interleave,
    opened,
    params_of,
    solve,
)


@pytest.mark.parametrize(
    ("field", "path", "expected"),
    [
        ("snapshots/lenet", "nets/solver.prototxt", "snapshots/lenet"),
        ("", "nets/solver.prototxt", "nets/solver"),
        ("", "nets/solver", "nets/solver"),
        ("{folder}", "nets/solver.prototxt", "{folder}/solver"),
        ("{folder}/", "nets/lenet.v2.prototxt", "{folder}/lenet.v2"),
    ],
)
def test_snapshot_prefix_is_the_field_s_or_the_solver_file_s(
    tmp_path: Path, field: str, path: str, expected: str
) -> None:
    solver = caffe_pb2.SolverParameter(snapshot_prefix=field.format(folder=tmp_path))
    assert snapshot_prefix(solver, path) == expected.format(folder=tmp_path)


# -- resuming ----------------------------------------------------------------------------------------------


def restored_from(path: Path) -> Callable[[Solver], None]:
    return lambda solver: solver.restore(str(path))


@pytest.mark.parametrize("world_size", [1, *WORLD_SIZES])
@pytest.mark.parametrize("iter_size", [1, 2])
@pytest.mark.parametrize("random_seed", [3, -1])
def test_restore_goes_on_as_if_it_had_never_stopped(
    runs: SmallRuns, world_size: int, iter_size: int, random_seed: int, on_ranks: OnRanks
) -> None:
    path = runs.write(
        f"max_iter: 17 snapshot: 9 average_loss: 12 iter_size: {iter_size} random_seed: {random_seed}",
        middle=BATCH_NORM + DROPOUT,
        transform=RANDOM_DATA,
        shuffle=True,
    )
    undisturbed = on_ranks(world_size, solve(path))
    resumed = on_ranks(world_size, solve(path, restored_from(runs.state(9))))
    for mine, theirs in zip(resumed, undisturbed, strict=True):
        assert mine.losses == theirs.losses[9:]
        assert_same_bits(mine, theirs)


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_snapshots_do_not_change_the_training(runs: SmallRuns, world_size: int, on_ranks: OnRanks) -> None:
    options = {"middle": DROPOUT, "transform": RANDOM_DATA, "shuffle": True}
    quiet = on_ranks(world_size, solve(runs.write("max_iter: 8", name="quiet", **options)))
    noisy = on_ranks(world_size, solve(runs.write("max_iter: 8 snapshot: 3", name="noisy", **options)))
    for mine, theirs in zip(noisy, quiet, strict=True):
        assert_same_bits(mine, theirs)


def test_restore_on_another_number_of_ranks_reads_the_same_records(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    options = {"transform": RANDOM_DATA, "shuffle": True}
    path = runs.write("max_iter: 5 snapshot: 5", batch_size=24 // SEVERAL, **options)
    expected = interleave(on_ranks(SEVERAL, solve(path)))
    for num_ranks in (1, SEVERAL):
        other = runs.write("max_iter: 5", name="other", batch_size=24 // num_ranks, **options)
        resumed = on_ranks(num_ranks, solve(other, restored_from(runs.state(5))))
        for mine, theirs in zip(interleave(resumed), expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_restore_in_the_middle_of_a_run_goes_back(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("max_iter: 9 snapshot: 4 average_loss: 3", middle=DROPOUT, shuffle=True)

    def body(communicator: Communicator) -> tuple[dict[str, np.ndarray], float]:
        with opened(path, communicator) as solver:
            solver.solve()
            return params_of(solver), solver.smoothed_loss

    def back_and_forth(communicator: Communicator) -> tuple[dict[str, np.ndarray], float]:
        with opened(path, communicator) as solver:
            solver.step(7)
            solver.restore(str(runs.state(4)))
            assert solver.iter == 4
            solver.solve()
            return params_of(solver), solver.smoothed_loss

    (expected, loss), (got, other_loss) = on_ranks(1, body)[0], on_ranks(1, back_and_forth)[0]
    assert loss == other_loss
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values)


# -- the newest --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, SEVERAL])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [({}, 6), ({6: ".caffemodel"}, 4), ({6: ".solverstate", 4: ".manifest.json"}, 2)],
)
def test_resume_newest_takes_the_newest_that_is_whole(
    runs: SmallRuns, world_size: int, damage: dict[int, str], expected: int, on_ranks: OnRanks
) -> None:
    path = runs.write("max_iter: 6 snapshot: 2")
    on_ranks(world_size, solve(path))
    if is_first():
        for iteration, ending in damage.items():
            file = runs.folder / f"run_iter_{iteration}{ending}"
            file.write_bytes(file.read_bytes()[:-1])
    wait_for_all()

    def body(communicator: Communicator) -> tuple[int, str | None]:
        with opened(path, communicator) as solver:
            return solver.iter, solver.resume_newest()

    def taken_up(communicator: Communicator) -> int:
        with opened(path, communicator) as solver:
            solver.resume_newest()
            return solver.iter

    assert on_ranks(world_size, body) == [(0, str(runs.state(expected)))] * world_size
    assert on_ranks(world_size, taken_up) == [expected] * world_size


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_resume_newest_without_snapshots_starts_from_the_beginning(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    path = runs.write()

    def body(communicator: Communicator) -> tuple[int, str | None]:
        with opened(path, communicator) as solver:
            return solver.iter, solver.resume_newest()

    assert on_ranks(world_size, body) == [(0, None)] * world_size


def test_newest_belongs_to_this_solver_s_prefix(runs: SmallRuns, on_ranks: OnRanks) -> None:
    on_ranks(1, solve(runs.write("max_iter: 1 snapshot: 1", name="run2")))
    with opened(runs.write(), SingleCommunicator()) as solver:
        assert solver.keeper.newest() is None


# -- what is written ---------------------------------------------------------------------------------------


def test_write_keeps_what_caffe_forgets_in_the_manifest(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("max_iter: 14 snapshot: 14 average_loss: 2 iter_size: 2", batch_size=5)
    outcomes = on_ranks(SEVERAL, solve(path))
    manifest = read_manifest(str(runs.state(14)).replace(".solverstate", ".manifest.json"))
    num_records = 14 * 2 * 5 * SEVERAL
    assert (manifest.iteration, manifest.world_size, manifest.seed) == (14, SEVERAL, 3)
    assert (manifest.batch_sizes, manifest.positions) == ({"data": 5}, {"data": num_records})
    assert (manifest.epoch, manifest.pass_index) == (num_records // 100, 28)
    mean_losses = np.mean([outcome.losses[-2:] for outcome in outcomes], axis=0)
    np.testing.assert_allclose(manifest.losses, mean_losses, rtol=1e-12)


def test_write_is_of_the_moment_though_training_goes_on(runs: SmallRuns) -> None:
    with opened(runs.write(), SingleCommunicator()) as solver:
        solver.step(2)
        before, history = params_of(solver), [array.copy() for array in solver.updater.history]
        path = solver.snapshot()
        solver.step(3)
        solver.keeper.finish()
        solver.restore(path)
        for name, values in params_of(solver).items():
            np.testing.assert_array_equal(values, before[name])
        for mine, kept in zip(solver.updater.history, history, strict=True):
            np.testing.assert_array_equal(mine, kept)


@pytest.mark.parametrize("with_diff", [False, True])
def test_write_keeps_the_gradients_if_snapshot_diff_says_so(runs: SmallRuns, with_diff: bool) -> None:
    with opened(runs.write(f"snapshot_diff: {str(with_diff).lower()}"), SingleCommunicator()) as solver:
        solver.net.params["ip"][1].diff[...] = 4
        solver.snapshot()
    net = caffe_pb2.NetParameter.FromString((runs.folder / "run_iter_0.caffemodel").read_bytes())
    (layer,) = (layer for layer in net.layer if layer.name == "ip")
    assert list(layer.blobs[1].diff) == ([4] * 4 if with_diff else [])


def test_restore_by_another_solver_type_is_refused_also_where_the_history_fits(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    on_ranks(1, solve(runs.write("max_iter: 2 snapshot: 2")))
    path = runs.write('type: "AdaGrad" momentum: 0')
    with opened(path, SingleCommunicator()) as solver, pytest.raises(UserError) as caught:
        solver.restore(str(runs.state(2)))
    assert str(caught.value).endswith(
        'run_iter_2.solverstate: the solver\'s type must be "SGD", whose history this is, got "AdaGrad"; '
        "to train on by another type, start from the weights (--weights)"
    )


# -- refused -----------------------------------------------------------------------------------------------


SHAPES: list[tuple[int, ...]] = [(4, 1, 3, 3), (4,), (4, 144), (4,)]  # of the small net's params
OTHER = "it is of another net or solver type"


def write_alien(runs: SmallRuns, shapes: list[tuple[int, ...]], model: str) -> None:
    """Write, as Caffe would, a .solverstate of ones with the model of another snapshot."""
    history = tuple(np.ones(shape, np.float32) for shape in shapes)
    state = SolverState(2, str(runs.folder / model), 0, history)
    write_solverstate(runs.folder / "alien_iter_2.solverstate", state)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "prepare", "problem"),
    [
        ("none_iter_2.solverstate", lambda runs: None, "none_iter_2.solverstate: .*no such file"),
        ("run_iter_2.caffemodel", lambda runs: None, "run_iter_2.caffemodel: "),
        (
            "run_iter_2.solverstate",
            lambda runs: truncate(runs.state(2)),
            "run_iter_2.solverstate: file must be as its manifest says",
        ),
        (
            "net_iter_2.solverstate",
            lambda runs: None,
            f"net_iter_2.solverstate: history must hold 4 arrays .* got 4 of other sizes; {OTHER}",
        ),
        (
            "alien_iter_2.solverstate",
            lambda runs: write_alien(runs, 2 * SHAPES, "run_iter_2.caffemodel"),
            f"alien_iter_2.solverstate: history must hold 4 arrays .* got 8; {OTHER}",
        ),
        (
            "alien_iter_2.solverstate",
            lambda runs: write_alien(runs, SHAPES, "net_iter_2.caffemodel"),
            r'net_iter_2.caffemodel: param 0 of layer "ip" must be \(4, 144\) as in this net, got \(7, 144\)',
        ),
    ],
    ids=["missing", "a model", "truncated", "another net", "another solver type", "another net's model"],
)
@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_restore_of_what_does_not_fit_changes_nothing(
    runs: SmallRuns,
    world_size: int,
    name: str,
    prepare: Callable[[SmallRuns], None],
    problem: str,
    on_ranks: OnRanks,
) -> None:
    on_ranks(1, solve(runs.write("max_iter: 2 snapshot: 2", name="net", num_classes=7)))
    path = runs.write("max_iter: 2 snapshot: 2")
    on_ranks(1, solve(path))
    if is_first():
        prepare(runs)
    wait_for_all()

    def body(communicator: Communicator) -> str:
        with opened(path, communicator) as solver:
            solver.step(1)
            before, history = params_of(solver), [array.copy() for array in solver.updater.history]
            with pytest.raises((UserError, AgreedFailure)) as caught:
                solver.restore(str(runs.folder / name))
            assert solver.iter == 1
            for param, values in params_of(solver).items():
                np.testing.assert_array_equal(values, before[param])
            for mine, kept in zip(solver.updater.history, history, strict=True):
                np.testing.assert_array_equal(mine, kept)
            return str(caught.value)

    messages = on_ranks(world_size, body)
    assert re.search(problem, messages[0]), messages[0]
    assert len(set(messages)) == 1


def test_restore_of_a_fitting_snapshot_of_caffe_takes_its_params_and_history(
    runs: SmallRuns, on_ranks: OnRanks
) -> None:
    (source,) = on_ranks(1, solve(runs.write("max_iter: 2 snapshot: 2", name="source")))
    path = runs.write("random_seed: 8")
    if is_first():
        write_alien(runs, SHAPES, "source_iter_2.caffemodel")
    wait_for_all()

    def body(communicator: Communicator) -> int:
        with opened(path, communicator) as solver:
            solver.restore(str(runs.folder / "alien_iter_2.solverstate"))
            for name, values in params_of(solver).items():
                np.testing.assert_array_equal(values, source.params[name])
            assert all((array == 1).all() for array in solver.updater.history)
            return solver.iter

    assert on_ranks(SEVERAL, body) == [2] * SEVERAL
