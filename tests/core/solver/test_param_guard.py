from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.core.solver.param_guard import check_params_equal, digest
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from tests.core.solver.ranks import SEVERAL, WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import BATCH_NORM, Recorder, SmallRuns, opened


@given(st.integers(1, 20_000), st.data())
def test_digest_shows_any_one_value_that_differs(size: int, data: st.DataObject) -> None:
    values = np.arange(size, dtype=np.float32)
    before = digest(values)
    assert digest(values.copy()) == before
    place = data.draw(st.integers(0, size - 1))
    bit = data.draw(st.integers(0, 31))
    values.view(np.uint32)[place] ^= np.uint32(1 << bit)
    assert digest(values) != before


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("is_first", [False, True])
def test_planted_divergence_is_noticed_at_the_next_comparison_and_named(
    runs: SmallRuns, world_size: int, is_first: bool, on_ranks: OnRanks
) -> None:
    path = runs.write("max_iter: 20 dtrain_param { check_interval: 5 }", middle=BATCH_NORM)
    culprit = 0 if is_first else world_size - 1

    def plant(solver: Solver) -> None:
        if solver.iter == 6 and solver.communicator.rank == culprit:
            solver.net.params["ip"][0].data[1, 2] += np.float32(1e-4)

    def body(communicator: Communicator) -> tuple[int, str, list[str]]:
        with opened(path, communicator, Recorder(after=plant)) as solver:
            with pytest.raises(AgreedFailure) as raised:
                solver.solve()
            ranks = [communicator.topology.describe(rank) for rank in range(world_size)]
            return solver.iter, str(raised.value), ranks

    for iteration, message, ranks in on_ranks(world_size, body):
        # Of two ranks nobody can say which one is wrong.
        named = (
            f"{ranks[culprit]} differs from the others"
            if world_size > 2
            else f"{ranks[1]} differs from {ranks[0]}"
        )
        assert iteration == 10
        assert message == (
            f'iteration 10: params must be the same on all ranks, {named} in param 0 of layer "ip"; '
            "resume from the last snapshot, and look at that host's memory and libraries"
        )


def test_params_that_are_statistics_may_differ(runs: SmallRuns, on_ranks: OnRanks) -> None:
    path = runs.write("", middle=BATCH_NORM)

    def body(communicator: Communicator) -> None:
        with opened(path, communicator) as solver:
            solver.net.params["bn"][0].data[...] = communicator.rank
            check_params_equal(solver.net.learnable_params, 1, communicator)

    on_ranks(SEVERAL, body)
