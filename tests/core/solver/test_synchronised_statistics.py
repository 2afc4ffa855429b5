"""Training with BatchNorm on several ranks: its statistics over all of them, or each rank's own, averaged."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.snapshots import read_caffemodel
from dtrain.dist.communicator import Communicator
from tests.core.solver.numbered_records import IMAGES, NUM_RECORDS, NumberedRuns, follow
from tests.core.solver.ranks import WORLD_SIZES, OnRanks
from tests.core.solver.small_runs import Array, SmallRuns, opened, params_of, solve

GLOBAL_BATCH_SIZE = 16
SYNCHRONISED = """layer { name: "bn" type: "BatchNorm" bottom: "h" top: "h"
  dtrain_param { sync_statistics: true } }"""
SCALED = 'layer { name: "scale" type: "Scale" bottom: "h" top: "h" scale_param { bias_term: true } }'
# Beside the way of the data to the loss, so that what it sees is known.
OF_DATA = 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "normal" }'
FRACTION = 0.999


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_solve_with_synchronised_statistics_has_the_losses_of_one_rank(
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
    losses = np.mean([outcome.losses for outcome in shared], axis=0)
    np.testing.assert_allclose(losses, alone[0].losses, rtol=1e-5)


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("solver", ['type: "SGD"', 'type: "Nesterov" iter_size: 2 clip_gradients: 0.5'])
def test_solve_with_synchronised_statistics_takes_the_steps_of_one_rank(
    numbered: NumberedRuns, world_size: int, solver: str, on_ranks: OnRanks
) -> None:
    (alone,), shared = (
        on_ranks(
            n,
            follow(
                numbered.write(
                    "LMDB",
                    f"max_iter: 10 {solver}",
                    name=f"on{n}",
                    batch_size=GLOBAL_BATCH_SIZE // n,
                    middle=SYNCHRONISED + SCALED,
                )
            ),
        )
        for n in (1, world_size)
    )
    assert len(alone.params) == 10
    for way in shared:
        for mine, first, expected in zip(way.params, shared[0].params, alone.params, strict=True):
            assert {"bn.0", "bn.1", "bn.2"} < expected.keys()
            for name, values in expected.items():
                np.testing.assert_allclose(mine[name], values, rtol=1e-5, atol=1e-5, err_msg=name)
                np.testing.assert_array_equal(mine[name], first[name])


def running_sums(num_passes: int, rank: int, world_size: int, batch_size: int) -> list[Array]:
    """Return in float64 what BatchNorm on the data has summed up on a rank, from the records in file order."""
    sums = [np.zeros(1), np.zeros(1), np.zeros(1)]
    for index in range(num_passes):
        first = index * batch_size * world_size + rank
        records = (first + world_size * np.arange(batch_size)) % NUM_RECORDS
        values = IMAGES[records] / 100
        added = (values.mean(), values.var(ddof=1), 1.0)
        sums = [FRACTION * total + value for total, value in zip(sums, added, strict=True)]
    return sums


@pytest.mark.parametrize("world_size", WORLD_SIZES)
def test_running_statistics_of_each_rank_are_averaged_before_tests_and_snapshots(
    numbered: NumberedRuns, world_size: int, on_ranks: OnRanks
) -> None:
    path = numbered.write("HDF5", "", batch_size=3, middle=OF_DATA, shuffle=False)

    def statistics(communicator: Communicator) -> list[list[Array]]:
        """Return the three sums after 2 iterations, after a test, after 2 more and after a snapshot."""
        with opened(path, communicator) as solver:
            seen = []
            for act in (lambda: solver.step(2), solver.test_all, lambda: solver.step(2), solver.snapshot):
                act()
                params = params_of(solver)
                seen.append([params[f"bn.{i}"] for i in range(3)])
            return seen

    ranks = on_ranks(world_size, statistics)
    own = [[running_sums(n, rank, world_size, 3) for n in (2, 4)] for rank in range(world_size)]
    after_2, after_4 = (np.mean([of_rank[i] for of_rank in own], axis=0) for i in (0, 1))
    for rank, (trained, tested, trained_on, kept) in enumerate(ranks):
        np.testing.assert_allclose(trained, own[rank][0], rtol=1e-5)
        np.testing.assert_allclose(tested, after_2, rtol=1e-5)
        # from the mean on, with the batches of this rank again
        grown = np.add(own[rank][1], FRACTION**2 * np.subtract(after_2, own[rank][0]))
        np.testing.assert_allclose(trained_on, grown, rtol=1e-5)
        np.testing.assert_allclose(kept, after_4, rtol=1e-5)
        np.testing.assert_array_equal(kept, ranks[0][3])
    assert not np.allclose(ranks[0][0], ranks[1][0], rtol=1e-5)
    (blobs,) = (
        layer.blobs
        for layer in read_caffemodel(numbered.folder / "run_iter_4.caffemodel")
        if layer.name == "bn"
    )
    for got, expected in zip(blobs, ranks[0][3], strict=True):
        np.testing.assert_array_equal(got, expected)
