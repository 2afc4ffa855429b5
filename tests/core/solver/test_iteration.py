"""A loss that is no number, noticed on every rank at the same iteration."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import EXIT_USER, AgreedFailure
from tests.core.solver.ranks import SEVERAL, OnRanks, is_first
from tests.core.solver.small_runs import Recorder, SmallRuns, opened, params_of


def spoil(solver: Solver, iteration: int, rank: int) -> None:
    """Let the conv layer of one rank give a NaN in one iteration's last pass."""
    conv = solver.net.layer_names.index("conv")

    def plant(i: int) -> None:
        if i == conv and solver.iter == iteration and solver.communicator.rank == rank:
            solver.net.blobs["h"].data[0, 0, 0, 0] = np.nan

    solver.net.callbacks.after_forward.append(plant)


@pytest.mark.parametrize("iter_size", [1, 2])
@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_loss_that_is_nan_ends_the_run_on_every_rank_before_its_update(
    runs: SmallRuns, world_size: int, iter_size: int, on_ranks: OnRanks
) -> None:
    path = runs.write(f"max_iter: 6 iter_size: {iter_size} snapshot: 4 snapshot_after_train: true")
    last = world_size - 1

    def body(communicator: Communicator) -> tuple[int, str]:
        recorder = Recorder()
        with opened(path, communicator, recorder) as solver:
            spoil(solver, 5, last)
            before = {}
            recorder.after = lambda solver: before.update(params_of(solver))
            with pytest.raises((UserError, AgreedFailure)) as raised:
                solver.solve()
            assert raised.value.exit_code == EXIT_USER
            for name, values in params_of(solver).items():
                np.testing.assert_array_equal(values, before[name])
            return solver.iter, str(raised.value)

    place = rf"rank {last} \(.*\): " if world_size > 1 else ""
    for iteration, message in on_ranks(world_size, body):
        assert iteration == 5
        assert re.fullmatch(
            place
            + r'iteration 5: loss must be finite; .*layer "conv": 1 of 1152 values is infinite or NaN in its '
            r'top "h", all before it is finite; lower base_lr, .*',
            message,
        )
    assert runs.state(4).exists()
    assert not runs.state(6).exists()


def test_loss_that_is_nan_if_skipped_leaves_out_that_update_alone(
    runs: SmallRuns, on_ranks: OnRanks, caplog: pytest.LogCaptureFixture
) -> None:
    path = runs.write("max_iter: 4 dtrain_param { on_non_finite_loss: SKIP }")

    def body(communicator: Communicator) -> tuple[list[bool], list[float]]:
        changed, params = [], {}
        recorder = Recorder()

        def compare(solver: Solver) -> None:
            now = params_of(solver)
            changed.append(any((now[name] != values).any() for name, values in params.items()))
            params.update(now)

        recorder.after = compare
        with opened(path, communicator, recorder) as solver:
            spoil(solver, 2, 0)
            params.update(params_of(solver))
            solver.solve()
            sums = np.array([values.sum() for values in params_of(solver).values()])
            assert (communicator.all_gather(sums) == sums).all()
            assert np.isfinite(solver.losses.losses).all()
        return changed, sums.tolist()

    for changed, _ in on_ranks(SEVERAL, body):
        assert changed == [True, True, False, True]
    assert sum("its update is left out" in message for message in caplog.messages) == is_first()


def test_snapshot_of_params_that_are_not_finite_is_refused(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("")

    def body(communicator: Communicator) -> str:
        with opened(path, communicator) as solver:
            solver.net.params["ip"][1].data[2] = np.inf
            with pytest.raises((UserError, AgreedFailure)) as raised:
                solver.snapshot()
            return str(raised.value)

    for message in on_ranks(SEVERAL, body):
        assert message.startswith(
            "snapshot at iteration 0: params must be finite, got 1 of 4 values is infinite or NaN in param 1 of "
            'layer "ip"; lower base_lr, '
        )
    assert not runs.state(0).exists()
