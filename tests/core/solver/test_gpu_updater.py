"""Runs whose params lie on a GPU: the host's updates, snapshots and sums, on played devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dtrain.core.solver.gpu_updater import GpuUpdater
from dtrain.core.solver.solver import Solver
from dtrain.core.tensor import HOST
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.solver.small_runs import (
    BATCH_NORM,
    DROPOUT,
    Outcome,
    SmallRuns,
    assert_same_bits,
    opened,
    solve,
)
from tests.core.solver.test_exactness import TYPES, all_at_once
from tests.played.cupy import play_cupy

# Behind it BatchNorm does not take the bias of the convolution away, whose gradient would be rounding's alone.
TANH = 'layer { name: "tanh" type: "TanH" bottom: "h" top: "h" }'


@pytest.fixture(autouse=True)
def _played(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cupy(monkeypatch)


def assert_close(mine: Outcome, theirs: Outcome) -> None:
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-4)
    for name, values in theirs.params.items():
        np.testing.assert_allclose(mine.params[name], values, rtol=1e-3, atol=1e-5, err_msg=name)
    for array, expected in zip(mine.history, theirs.history, strict=True):
        np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(mine.average, theirs.average, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TYPES)
def test_run_on_a_gpu_is_the_hosts_and_resumes_to_the_same_bits(runs: SmallRuns, name: str) -> None:
    path = runs.write(all_at_once(name), middle=DROPOUT)
    undisturbed = solve(path, engine="cupy")(SingleCommunicator())
    restore: Callable[[Solver], object] = lambda solver: solver.restore(str(runs.state(3)))  # noqa: E731
    resumed = solve(path, restore, engine="cupy")(SingleCommunicator())
    assert resumed.losses == undisturbed.losses[3:]
    assert_same_bits(resumed, undisturbed)
    assert_close(undisturbed, solve(path)(SingleCommunicator()))


def test_snapshot_of_a_gpu_is_taken_up_by_the_host(runs: SmallRuns) -> None:
    path = runs.write(all_at_once("Adam"), middle=TANH + BATCH_NORM)
    on_gpu = solve(path, engine="cupy")(SingleCommunicator())
    resumed = solve(path, lambda solver: solver.restore(str(runs.state(3))))(SingleCommunicator())
    assert_close(resumed_with(resumed, on_gpu), on_gpu)


def resumed_with(resumed: Outcome, whole: Outcome) -> Outcome:
    """Return a resumed run's outcome with the losses of before."""
    resumed.losses[:0] = whole.losses[:3]
    return resumed


def test_params_of_one_rank_on_a_gpu_stay_there(runs: SmallRuns) -> None:
    with opened(runs.write(), SingleCommunicator(), engine="cupy") as solver:
        assert isinstance(solver.updater, GpuUpdater)
        solver.step(2)
        for param in solver.arena.params:
            for tensor in (param.blob.data_tensor, param.blob.diff_tensor):
                assert solver.engine.memory in tensor.storage.valid
                assert tensor.storage.home is solver.engine.memory
        solver.net.params["ip"][0].data[...] = 7  # what a script writes counts
        assert solver.net.params["ip"][0].read_data(solver.engine.memory).get().max() == 7


def test_ranks_whose_communicator_knows_no_gpus_update_on_the_host(runs: SmallRuns) -> None:
    path = runs.write("max_iter: 4")

    def body(communicator: Any) -> tuple[bool, dict[str, Any]]:
        with opened(path, communicator, engine="cupy") as solver:
            on_host = solver.arena.memory is HOST
            solver.solve()
            return on_host, {name: blobs[0].data.copy() for name, blobs in solver.net.params.items()}

    (on_host, mine), (_, others) = run_ranks(2, body)
    assert on_host
    expected = run_ranks(2, solve(path))[0].params
    for name, values in mine.items():
        np.testing.assert_array_equal(values, others[name])
        np.testing.assert_allclose(values, expected[f"{name}.0"], rtol=1e-4, atol=1e-6)
