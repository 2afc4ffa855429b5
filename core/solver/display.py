"""What a solver logs while it trains, in Caffe's own sentences, so that Caffe's log parsers work."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np

from dtrain.core.net.net import Net
from dtrain.core.net.scores import Score, name_values, output_lines, output_values
from dtrain.core.snapshots import LossScaleState
from dtrain.core.solver.lockstep import mean_over_ranks
from dtrain.core.solver.loss_scale import SMALLEST
from dtrain.dist.communicator import Communicator

log = logging.getLogger(__name__)


class Display:
    """Logs losses, outputs and speed. Losses and outputs are means over all ranks, so showing is collective."""

    def __init__(self, net: Net, communicator: Communicator, interval: int) -> None:
        self._net = net
        self._communicator = communicator
        self._interval = interval
        self._lap_start = (time.perf_counter(), 0)
        self._next_epoch_line = 0

    def is_due(self, iteration: int) -> bool:
        """Return whether `iteration` is one to show (the solver's `display`)."""
        return self._interval > 0 and iteration % self._interval == 0

    def start_lap(self, iteration: int) -> None:
        """Measure the speed from here on."""
        self._lap_start = (time.perf_counter(), iteration)

    def show(self, iteration: int, smoothed_loss: float, learning_rate: float) -> None:
        """Log the lines of a display iteration."""
        before, first = self._lap_start
        self.start_lap(iteration)
        elapsed_s = self._lap_start[0] - before
        values = np.append(output_values(self._net), smoothed_loss)
        means = mean_over_ranks(values, self._communicator)
        log.info(
            "Iteration %d (%g iter/s, %gs/%d iters), loss = %g",
            *(iteration, (iteration - first) / elapsed_s, elapsed_s, self._interval, means[-1]),
        )
        _log_lines(output_lines("Train", name_values(self._net, means[:-1])))
        log.info("Iteration %d, lr = %g", iteration, learning_rate)

    def show_loss_scale(self, state: LossScaleState | None) -> None:
        """Log the loss scale, if there is one; warn where it can't be lowered any more. Not collective."""
        if state is None:
            return
        log.info("    Loss scale = %g, updates left out: %d", state.value, state.num_left_out)
        if state.value <= SMALLEST and state.num_left_out and not state.num_finite:
            log.warning(
                "gradients must be finite, got others at the smallest loss scale too: updates are left out; lower "
                "base_lr, or use precision BF16 or FLOAT32"
            )

    def show_epoch(self, iteration: int, epoch: int) -> None:
        """Log that an epoch of the first reading layer begins, but for epoch 0. Not collective.

        With small sets there is no more than one line every `display` iterations.
        """
        layer = self._net.reading_layers[0]
        if epoch and iteration >= self._next_epoch_line:
            self._next_epoch_line = iteration + self._interval
            log.info(
                'Epoch %d begins at iteration %d (%d records of layer "%s")',
                *(epoch, iteration, layer.num_records, layer.name),
            )

    def show_loss(self, iteration: int, loss: float) -> None:
        """Log the loss after the last iteration."""
        mean = mean_over_ranks(np.array([loss]), self._communicator)
        log.info("Iteration %d, loss = %g", iteration, mean[0])


def show_test(scores: Sequence[Score], loss: float | None) -> None:
    """Log the scores of a test pass, and its mean loss if given."""
    if loss is not None:
        log.info("Test loss: %g", loss)
    _log_lines(output_lines("Test", scores))


def _log_lines(lines: Sequence[str]) -> None:
    for line in lines:
        log.info("%s", line)
