"""The place of a run in a manifest: what is taken from the nets, and where they go on."""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.place import describe_place, epochs_done, go_to_place
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.small_runs import NUM_RECORDS, SmallRuns, opened

BATCH_SIZE = 30


def window(*losses: float) -> LossWindow:
    filled = LossWindow(3)
    filled.restart(losses)
    return filled


def test_describe_place_after_four_batches_says_where_the_next_one_begins(runs: SmallRuns) -> None:
    with opened(runs.write(batch_size=BATCH_SIZE), SingleCommunicator()) as solver:
        for _ in range(4):
            solver.net.forward()
        assert epochs_done(solver.net) == 4 * BATCH_SIZE // NUM_RECORDS == 1
        manifest = describe_place(solver.net, window(3, 2), iteration=4, current_step=1)
    assert manifest.positions == {"data": 4 * BATCH_SIZE}
    assert manifest.batch_sizes == {"data": BATCH_SIZE}
    assert (manifest.iteration, manifest.epoch, manifest.pass_index, manifest.seed) == (4, 1, 4, 3)
    assert (manifest.world_size, manifest.current_step, manifest.losses) == (1, 1, (3, 2))


def test_go_to_place_reads_and_smooths_on_whatever_the_seed_was(runs: SmallRuns) -> None:
    fields: Any = {"batch_size": BATCH_SIZE, "shuffle": True, "transform": "crop_size: 6 mirror: true"}
    with opened(runs.write(**fields), SingleCommunicator()) as solver:
        for _ in range(4):
            solver.net.forward()
        manifest = describe_place(solver.net, window(3, 2), iteration=4, current_step=0)
        solver.net.forward()
        expected = solver.net.blobs["data"].data.copy()
    other = runs.write("random_seed: 99", name="other", **fields)
    with opened(other, SingleCommunicator()) as solver:
        losses = window()
        go_to_place(manifest, solver.net, solver.test_nets, losses)
        solver.net.forward()
        np.testing.assert_array_equal(solver.net.blobs["data"].data, expected)
        assert solver.net.context.random.seed == 3
        assert solver.net.context.random.pass_index == 5
        assert losses.losses == [3, 2]
