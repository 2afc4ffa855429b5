"""The pace: how long this rank computes for an iteration beside the others, so that a straggler is named.

All ranks wait for the slowest. Each rank adds its seconds of work to a sum that travels with the gradients, and
the one that is far above the others' mean says so itself. Nothing is ended: slow is not dead.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dtrain.dist.communicator import Communicator

log = logging.getLogger(__name__)

FACTOR = 3.0  # a straggler takes so many times as long as the others do on average
NUM_ITERATIONS = 3  # in a row, lest a snapshot or a hiccup of the machine be told
LEAST_S = 0.02  # shorter is a hiccup of the machine
SILENCE_S = 60.0  # between two lines


class Pace:
    """Measures this rank's seconds of work an iteration and compares them with the other ranks'.

    work_s: of the iteration before: the seconds that this rank has not spent in collective calls.
    """

    def __init__(self, communicator: Communicator, clock: Callable[[], float] = time.monotonic) -> None:
        self.work_s = 0.0
        self._communicator = communicator
        self._clock = clock
        self._at: tuple[float, float] | None = None
        self._num_slow = 0
        self._told_at = -SILENCE_S

    def lap(self) -> float:
        """Begin the next iteration and return the work_s of the one that ends, 0 for the first."""
        now, waited_s = self._clock(), self._communicator.waited_s
        if self._at is not None:
            self.work_s = max(0.0, now - self._at[0] - (waited_s - self._at[1]))
        self._at = now, waited_s
        return self.work_s

    def restart(self) -> None:
        """Forget when the last lap was: time passes that belongs to no iteration (a test, a user's own work)."""
        self._at = None
        self.work_s = 0.0

    def compare(self, sum_s: float, iteration: int) -> None:
        """Warn if this rank's work_s is far above the mean of the others, whose sum with it is `sum_s`."""
        num_others = self._communicator.world_size - 1
        if num_others == 0:
            return
        others_s = (sum_s - self.work_s) / num_others
        is_slow = self.work_s > max(LEAST_S, FACTOR * others_s)
        self._num_slow = self._num_slow + 1 if is_slow else 0
        if self._num_slow >= NUM_ITERATIONS and self._clock() - self._told_at >= SILENCE_S:
            self._told_at = self._clock()
            topology = self._communicator.topology
            log.warning(
                "%s is the straggler at iteration %d: an iteration takes it %.3g s, the others, who wait, %.3g s",
                *(topology.describe(topology.rank), iteration, self.work_s, others_s),
            )
