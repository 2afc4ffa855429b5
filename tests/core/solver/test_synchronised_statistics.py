"""Training with BatchNorm over all ranks: N ranks with batches of b go the way of one with N·b."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.solver.ranks import WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import Outcome, SmallRuns, solve

GLOBAL_BATCH_SIZE = 16
SYNCHRONISED = """layer { name: "bn" type: "BatchNorm" bottom: "h" top: "h"
  dtrain_param { sync_statistics: true } }"""


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_solve_with_synchronised_statistics_takes_the_way_of_one_rank(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    alone, shared = (
        on_ranks(
            n,
            solve(
                runs.write(
                    "max_iter: 5", name=f"on{n}", batch_size=GLOBAL_BATCH_SIZE // n, middle=SYNCHRONISED
                )
            ),
        )
        for n in (1, world_size)
    )
    assert_same_params(shared, alone[0])
    losses = np.mean([outcome.losses for outcome in shared], axis=0)
    np.testing.assert_allclose(losses, alone[0].losses, rtol=1e-4)


def assert_same_params(outcomes: list[Outcome], expected: Outcome) -> None:
    """Params agree within 1e-4 of the largest, running statistics included, and are the same on all ranks.

    The bias before a BatchNorm has no gradient but rounding errors; these are far below 1e-6.
    """
    for outcome in outcomes:
        for name, values in expected.params.items():
            scale = float(np.abs(values).max())
            np.testing.assert_allclose(outcome.params[name], values, rtol=1e-4, atol=1e-4 * scale + 1e-6)
            np.testing.assert_array_equal(outcome.params[name], outcomes[0].params[name])
