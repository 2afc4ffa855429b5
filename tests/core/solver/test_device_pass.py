"""Passes of which the host sees nothing until it asks: losses, what ranks tell, and the update."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dtrain.core.net.fixed_places import pin
from dtrain.core.solver.device_pass import DevicePass
from dtrain.core.solver.extra_values import NUM_EXTRA, Extra
from dtrain.core.solver.solver import Solver
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.small_runs import DROPOUT, SmallRuns, opened, params_of
from tests.played.cupy import play_cupy


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch, runs: SmallRuns) -> Iterator[Solver]:
    """Give a solver on a GPU whose iterations are of two passes."""
    play_cupy(monkeypatch)
    path = runs.write("iter_size: 2 lr_policy: 'fixed' momentum: 0 weight_decay: 0", middle=DROPOUT)
    with opened(path, SingleCommunicator(), engine="cupy") as made:
        yield made


def begin(solver: Solver) -> DevicePass:
    updater: Any = solver.updater
    updater.send(0, 1)
    solver.arena.void_diffs()
    return DevicePass(solver.net, solver.exchange, updater, solver.arena)


def read(solver: Solver, work: DevicePass) -> None:
    """Run the layers without bottoms."""
    for i in work.sources:
        solver.net.run_layer(i)
        pin(solver.net.tops[i], solver.arena.memory)


def results_of(work: DevicePass) -> tuple[float, Any]:
    work.post().synchronize()
    loss, extra = work.results()
    return loss, extra.copy()


def test_passes_sum_losses_and_send_what_is_told(solver: Solver) -> None:
    work = begin(solver)
    losses = []
    for is_last in (False, True):
        read(solver, work)
        if is_last:
            work.tell(np.array([1, 0, 0, 2.5], np.float32))
        work.run(not is_last, is_last)
        losses.append(float(solver.net.blobs["loss"].read_data()))
    loss, extra = results_of(work)
    assert loss == losses[0] + losses[1]
    np.testing.assert_array_equal(extra, [1, 0, 0, 2.5])


def test_last_pass_updates_by_the_mean_of_all(solver: Solver) -> None:
    before = params_of(solver)
    work = begin(solver)
    for is_last in (False, True):
        read(solver, work)
        work.tell(np.zeros(NUM_EXTRA, np.float32))
        work.run(not is_last, is_last)
    solver.net.blobs["loss"].read_data()
    change = before["ip.1"] - params_of(solver)["ip.1"]
    np.testing.assert_allclose(change, solver.net.params["ip"][1].diff, rtol=0, atol=1e-7)  # as in Caffe
    assert np.abs(change).max() > 0


def test_loss_that_is_not_finite_is_told_and_leaves_the_update_out(solver: Solver) -> None:
    weight = solver.net.params["ip"][0].update_data()
    weight[0, 0] = np.inf
    before = params_of(solver)
    work = begin(solver)
    read(solver, work)
    with np.errstate(invalid="ignore"):
        work.run(True, True)
    loss, extra = results_of(work)
    assert not np.isfinite(loss)
    assert extra[Extra.NON_FINITE] == 1
    for name, values in params_of(solver).items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)


def test_random_numbers_of_a_pass_are_moved_by_replays_once(solver: Solver) -> None:
    work = begin(solver)
    read(solver, work)
    net, drop = solver.net, solver.net.layer_names.index("drop")

    def mask() -> Any:
        net.run_layer(drop - 1)
        net.run_layer(drop)
        return net.blobs["h"].read_data() != 0

    net.context.random.pass_index = 7
    expected = mask()
    net.context.random.pass_index = 5
    work.set_replays(2)
    np.testing.assert_array_equal(mask(), expected)
    work.run(True, False)
    assert (mask() != expected).any()
