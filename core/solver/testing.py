"""Test passes: when they are due, and the mean score of a test net over its batches, shared out over all ranks.

Whole batches are dealt round robin, and each batch's scores are summed in the order of the batches. So every
output, also one that is no mean over items, has the same score on 1 rank or 8, to the last bit. Where layers carry
a state from batch to batch, each rank runs all batches, and the state begins anew with each pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.net.scores import Score, name_values, output_values
from dtrain.core.solver.display import show_test
from dtrain.data.sampler import Shard
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


class Tester:
    """Runs the test nets of a solver: on all ranks, or with test_on_rank_0 on rank 0 alone, as Caffe does."""

    def __init__(
        self, nets: Sequence[Net], solver: caffe_pb2.SolverParameter, communicator: Communicator
    ) -> None:
        self._nets = nets
        self._solver = solver
        self._communicator = communicator

    def is_due(self, iteration: int) -> bool:
        """Return whether test_interval asks for tests before `iteration`."""
        return self._solver.test_interval > 0 and iteration % self._solver.test_interval == 0

    def run_all(self, iteration: int, tell: Callable[[int, list[Score]], None]) -> list[list[Score]]:
        """Run every net over its test_iter batches, log and return the scores; tell(i, scores) after net i.

        Collective. A rank that takes no part returns no scores and tells nobody.
        """
        results: list[list[Score]] = []
        for i, (net, num_batches) in enumerate(zip(self._nets, self._solver.test_iter, strict=True)):
            log.info("Iteration %d, Testing net (#%d)", iteration, i)
            alone = self._solver.dtrain_param.test_on_rank_0
            if alone and self._communicator.rank != 0:
                results.append([])
                continue
            scores, loss = run_test_pass(net, num_batches, None if alone else self._communicator)
            show_test(scores, loss if self._solver.test_compute_loss else None)
            tell(i, scores)
            results.append(scores)
        return results


def run_test_pass(
    net: Net,
    num_batches: int,
    communicator: Communicator | None,
    on_batch: Callable[[int, NDArray[np.float64]], None] | None = None,
) -> tuple[list[Score], float]:
    """Return the mean of each output value over `num_batches` batches from record 0 on, and the mean loss.

    Collective if a communicator is given: its ranks share the batches, whose shard is that of the net's
    context: all of them on every rank for a net that carries a state. Without one, this rank runs them all.
    on_batch(index, values) is called after each of this rank's. Raises UserError where an output changes its size.
    """
    shard = net.context.shard if communicator is not None else Shard(0, 1)
    mine = list(range(shard.rank, num_batches, shard.world_size))
    for layer in net.layers:
        layer.begin_anew()
    for layer in net.reading_layers:
        layer.start(0, len(mine))
    rows: list[NDArray[np.float64]] = []
    for batch in mine:
        net.context.random.pass_index = batch  # what is random depends on the batch, not on who runs it
        loss = net.forward()
        values = output_values(net)
        if rows and len(values) + 1 != len(rows[0]):
            raise UserError(
                f"testing: the outputs of a net must keep their sizes from batch to batch, got {len(values)} values "
                f"after {len(rows[0]) - 1}; let batches have one size, or end the net in a loss or an accuracy"
            )
        rows.append(np.append(values, loss))
        if on_batch is not None:
            on_batch(batch, values)
    width = len(output_values(net)) + 1
    is_shared = shard.world_size > 1
    table = _gather(np.array(rows).reshape(-1, width), num_batches, communicator if is_shared else None)
    means = table.sum(axis=0) / num_batches
    return name_values(net, means[:-1]), float(means[-1])


def _gather(
    rows: NDArray[np.float64], num_batches: int, communicator: Communicator | None
) -> NDArray[np.float64]:
    """Return the rows of all batches in the order of the batches: batch i is row i // N of rank i % N."""
    if communicator is None:
        return rows
    world_size = communicator.world_size
    padded = np.zeros((-(-num_batches // world_size), rows.shape[1]))
    padded[: len(rows)] = rows
    gathered = communicator.all_gather(padded)  # (rank, row, value)
    return gathered.transpose(1, 0, 2).reshape(-1, rows.shape[1])[:num_batches]
