"""One iteration's arithmetic on this rank: passes through the net, sums over all ranks, the update.

    iter_size × (forward, backward) ──> gradient exchange ──> updater ──> average of weights

The solver around it says when to test, display and snapshot.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from dtrain.core.net.net import Net
from dtrain.core.net.params import Param
from dtrain.core.registry import Registry
from dtrain.core.solver.extra_values import Extra
from dtrain.core.solver.gradient_exchange import GradientExchange
from dtrain.core.solver.loss_window import LossWindow
from dtrain.core.solver.non_finite import agree_on_non_finite, find_non_finite, stop_for
from dtrain.core.solver.pace import Pace
from dtrain.core.solver.requests import NUM_REQUESTS, Requests
from dtrain.core.solver.updater import Updater
from dtrain.core.solver.weight_average import WeightAverage
from dtrain.dist.communicator import Communicator
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

Callbacks = Sequence[tuple[Callable[[], object], Callable[[], object]]]


class Iteration:
    """Computes iterations of the run of `net`, one after the other.

    losses: takes each iteration's loss. requests: what this rank was asked for, until it has been sent. pace: how
    long this rank's iterations take. The extra values of `exchange`'s arena hold what all ranks said last. captures:
    whether a GPU may be given iterations in one piece; see captured_iteration.py.
    """

    captures = False

    def __init__(
        self,
        net: Net,
        exchange: GradientExchange,
        updater: Updater,
        average: WeightAverage,
        losses: LossWindow,
        communicator: Communicator,
    ) -> None:
        self.requests = Requests()
        self.pace = Pace(communicator)
        self._net = net
        self._exchange = exchange
        self._updater = updater
        self._average = average
        self._losses = losses
        self._communicator = communicator
        self._arena = updater.arena
        self._param = updater.solver
        self._non_finite = ""  # where this rank's loss stopped being finite; "" where it did not

    def forward_backward(self, iteration: int, callbacks: Callbacks) -> None:
        """Run the passes of `iteration`, iter_size of them. Gradients are summed during the last backward, unless
        `callbacks` want them first.
        """
        self._arena.clear()
        for on_start, _ in callbacks:
            on_start()
        loss, self._non_finite = 0.0, ""
        for k in range(self._param.iter_size):
            loss += self._net.forward()
            if not (math.isfinite(loss) or self._non_finite):
                self._non_finite = find_non_finite(self._net)
            is_last = k == self._param.iter_size - 1
            if is_last and not callbacks and self._exchange.can_overlap:
                self._write_extra()
                with self._exchange.overlapping():
                    self._net.backward()
            else:
                self._net.backward()
        if not self._non_finite:
            self._losses.add(loss / self._param.iter_size)

    def update(self, iteration: int) -> None:
        """Sum the diffs over all ranks and update the params by them. Collective.

        Raises UserError, or AgreedFailure on several ranks, for a loss that is not finite, before anything has
        changed; with on_non_finite_loss: SKIP the iteration has no update.
        """
        if not self._exchange.has_begun:
            self._write_extra()
        self._take(self._exchange.sums(iteration))

    def settle(self) -> None:
        """Apply the gradients that are still under way, if the exchange is one that is late. Collective."""
        if self._exchange.has_pending:
            self._take(self._exchange.settle())

    def close(self) -> None:
        """Let go of what iterations to come would need."""

    def _write_extra(self) -> None:
        """Put before the diffs what this rank has to tell all ranks."""
        extra = self._arena.extra
        self.requests.send(extra[:NUM_REQUESTS])
        extra[Extra.NON_FINITE] = bool(self._non_finite)
        extra[Extra.BUSY_S] = self.pace.lap()
        self._arena.send_extra()

    def _take(self, sums: Iterator[Sequence[Param]]) -> None:
        """Update the params of each bucket of `sums`, all at once where the norm of all gradients is asked for."""
        first = next(sums, None)
        if first is None:
            return
        self._arena.take_extra(self._communicator.wait_for)
        iteration, world_size = self._exchange.iteration, self._communicator.world_size
        if self._arena.extra[Extra.NON_FINITE]:
            self._leave_out(sums)
            return
        self.pace.compare(float(self._arena.extra[Extra.BUSY_S]), iteration)
        buckets = chain([first], sums)
        if self._updater.needs_all_gradients:
            for _ in buckets:
                pass
            buckets = chain([self._updater.params])
        self._updater.begin(iteration, world_size)
        for params in buckets:
            self._updater.update(params)
        self._average.enter()

    def _leave_out(self, sums: Iterator[Sequence[Param]]) -> None:
        """Update nothing by gradients of a loss that is not finite: end the run, or go on without. Collective."""
        for _ in sums:
            pass
        problems = agree_on_non_finite(self._exchange.iteration, self._non_finite, self._communicator)
        if self._param.dtrain_param.on_non_finite_loss != caffe_pb2.DtrainSolverParameter.SKIP:
            stop_for(problems, self._communicator)
        for problem in problems if self._communicator.rank == 0 else ():
            log.warning("%s; its update is left out", problem)


# By the name of the memory that the params are in, as updaters are.
ITERATIONS: Registry[type[Iteration]] = Registry("memory of params")
ITERATIONS.register("host")(Iteration)
ITERATIONS.register_module("device", "dtrain.core.solver.captured_iteration")
