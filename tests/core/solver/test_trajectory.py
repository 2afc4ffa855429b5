"""The same way from the same start, however the records of an iteration are shared out."""

from __future__ import annotations

import numpy as np
import pytest

from tests.core.solver.ranks import WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import (
    BATCH_NORM,
    RANDOM_DATA,
    Outcome,
    SmallRuns,
    interleave,
    solve,
)

GLOBAL_BATCH_SIZE = 64


def mean_losses(outcomes: list[Outcome]) -> np.ndarray:
    """Return the mean over the ranks of each iteration's loss."""
    return np.mean([outcome.losses for outcome in outcomes], axis=0)


def assert_same_way(got: list[Outcome], expected: list[Outcome]) -> None:
    """Losses and params agree within 1e-4, and the same records come next."""
    np.testing.assert_allclose(mean_losses(got), mean_losses(expected), rtol=1e-4)
    for outcome in got:
        for name, values in expected[0].params.items():
            scale = float(np.abs(values).max())
            np.testing.assert_allclose(outcome.params[name], values, rtol=1e-4, atol=1e-4 * scale)
    for mine, theirs in zip(interleave(got), interleave(expected), strict=True):
        np.testing.assert_array_equal(mine[: len(theirs)], theirs[: len(mine)])


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize(
    ("shuffle", "transform"), [(False, ""), (True, RANDOM_DATA)], ids=["in file order", "shuffled"]
)
@pytest.mark.parametrize("solver", ["", "clip_gradients: 0.5 regularization_type: 'L1'"])
def test_solve_on_any_number_of_ranks_takes_the_same_way(
    runs: SmallRuns, world_size: int, shuffle: bool, transform: str, solver: str, on_ranks: OnRanks
) -> None:
    alone, shared = (
        on_ranks(
            n,
            solve(
                runs.write(
                    solver,
                    name=f"on{n}",
                    batch_size=GLOBAL_BATCH_SIZE // n,
                    shuffle=shuffle,
                    transform=transform,
                )
            ),
        )
        for n in (1, world_size)
    )
    assert_same_way(shared, alone)
    losses = mean_losses(shared)
    assert len(losses) == 20
    assert losses[-1] < 0.9 * losses[0]  # it does learn


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("middle", ["", BATCH_NORM])
def test_solve_leaves_the_same_learned_params_on_every_rank(
    runs: SmallRuns, world_size: int, middle: str, on_ranks: OnRanks
) -> None:
    first, *others = on_ranks(world_size, solve(runs.write("max_iter: 5", middle=middle)))
    for other in others:
        for name, values in first.params.items():
            if not name.startswith("bn."):  # each rank's running statistics are of its own batches
                np.testing.assert_array_equal(other.params[name], values)
        for mine, theirs in zip(first.history, other.history, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("world_size", [1, WORLD_SIZES[0]])
def test_solve_with_iter_size_and_smaller_batches_takes_the_same_way(
    runs: SmallRuns, world_size: int, on_ranks: OnRanks
) -> None:
    whole = runs.write("max_iter: 8", name="whole", batch_size=12)
    thirds = runs.write("max_iter: 8 iter_size: 3", name="thirds", batch_size=4)
    expected, got = (on_ranks(world_size, solve(path)) for path in (whole, thirds))
    assert_same_way(got, expected)
