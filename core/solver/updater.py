"""The updater: from summed gradients to changed params, in Caffe's order.

    clip by global norm → divide by iter_size → weight decay → update rule

The division by the number of ranks is folded into the same factor. Params are cut into pieces, which stay in the
cache while the rule goes over them and which the rank's threads share; no value depends on who has which piece.
Follows caffe's sgd_solver.cpp.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.lr_policies import learning_rate, multistep_index
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Array, Step, sum_of_squares
from dtrain.data.workers import Workers
from dtrain.dist.cores import num_threads_of
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

PIECE_SIZE = 1 << 17  # values: the arrays of a piece stay in the cache from one operation to the next
SHARED_SIZE = 1 << 20  # values: fewer are updated before another thread has woken up

Task = Callable[[], None]


class Updater:
    """Applies gradients to the learned params of one net.

    params: all owned params, in Caffe's order; those in `arena` learn. history: the rule's arrays, first kind
    for all params, then second kind, as a .solverstate holds them. num_reductions: how often the policy
    "plateau" has lowered the rate. rate_factor: by which what the policy says is multiplied. debug_info: whether to
    log, as Caffe's Net::UpdateDebugInfo does, the mean absolute values of each param before its update and of what
    is taken off. shows_changes: whether diffs become what is taken off, as in Caffe. Where nobody looks at them after
    the update it is better off: what they are then depends on the rule.

    Arguments:
        num_threads: that share the work, of which the caller's is one; by default as many as this rank computes with.
            The others start when there is first enough to do for them, and end with close().

    The fields of `solver` have passed field_rules.py.
    """

    def __init__(
        self,
        solver: caffe_pb2.SolverParameter,
        params: Sequence[Param],
        arena: Arena,
        num_threads: int | None = None,
    ) -> None:
        self.solver = solver
        self.params = params
        self.arena = arena
        self.rule = UPDATE_RULES[solver.type](solver)
        self.history: list[Array] = [
            np.zeros(param.blob.shape, np.float32) for _ in range(self.rule.num_histories) for param in params
        ]
        self.num_reductions = 0
        self.rate_factor = 1.0
        self.debug_info = False
        self.shows_changes = True
        self._index_of = {id(param): k for k, param in enumerate(params)}
        self._iteration, self._rate, self._scale = 0, 0.0, 1.0  # of the update under way
        self._workers = Workers(num_threads or num_threads_of(os.environ))

    def rate(self, iteration: int) -> float:
        """Return the learning rate of `iteration`."""
        return learning_rate(self.solver, iteration, self.num_reductions, self.rate_factor)

    def current_step(self, iteration: int) -> int:
        """Return the current_step of a .solverstate: how many steps multistep or plateau has gone down."""
        steps = {"multistep": multistep_index(self.solver, iteration), "plateau": self.num_reductions}
        return steps.get(self.solver.lr_policy, 0)

    @property
    def needs_all_gradients(self) -> bool:
        """Whether `begin` must wait for all gradients: their norm is asked for, or the log in Caffe's order."""
        return self.solver.clip_gradients >= 0 or self.debug_info

    def apply(self, iteration: int, world_size: int) -> None:
        """Update all params from diffs that are sums over `world_size` ranks and iter_size passes."""
        self.begin(iteration, world_size)
        self.update(self.params)

    def begin(self, iteration: int, world_size: int) -> None:
        """Begin the update of `iteration`; the diffs are sums as for `apply`, or will be when `update` has them."""
        self._log_step(iteration)
        self._iteration, self._rate = iteration, self.rate(iteration)
        self._scale = self._clipped_scale(1.0 / world_size) / self.solver.iter_size

    def update(self, params: Sequence[Param]) -> None:
        """Update `params`, some of all, whose diffs are sums now."""
        learned = [param for param in params if param.learning_rate_multiplier]
        if not self.debug_info:
            self._update(learned)
            return
        for param in learned:
            before = param.blob.data.copy()
            self._update([param])
            _log_update(param, before)

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        self._workers.close()

    def _update(self, params: Sequence[Param]) -> None:
        tasks = [task for param in params for task in self._tasks(param)]
        self._run(tasks, sum(param.blob.count for param in params))

    def _tasks(self, param: Param) -> Iterator[Task]:
        """Yield what there is to do for `param`, piece by piece if the rule allows it."""
        k, blob = self._index_of[id(param)], param.blob
        rate = self._rate * param.learning_rate_multiplier
        shows_change = self.shows_changes or not self.rule.spares_diff
        step = Step(rate, self._iteration, self._decay(param), self._scale, shows_change)
        arrays = (blob.update_data(), blob.update_diff(), *self.history[k :: len(self.params)])
        is_whole = blob.count <= PIECE_SIZE or not self.rule.elementwise
        for data, diff, *history in [arrays] if is_whole else _pieces(arrays):
            yield partial(self.rule.apply, data, diff, history, step)

    def _run(self, tasks: Sequence[Task], num_values: int) -> None:
        """Do `tasks`, in any order, shared among the threads if they go over enough values."""
        if self._workers.num_threads > 1 and num_values >= SHARED_SIZE:
            self._workers.run(lambda k: tasks[k](), len(tasks))
            return
        for task in tasks:
            task()

    def _clipped_scale(self, scale: float) -> float:
        """Return `scale`, less if the scaled gradient's L2 norm over all params is above clip_gradients."""
        limit = self.solver.clip_gradients
        if limit < 0:
            return scale
        norm = self._gradient_norm() * scale
        return scale * limit / norm if norm > limit else scale

    def _gradient_norm(self) -> float:
        """Return the L2 norm of all diffs."""
        self.arena.update_reduced()
        sums: list[float] = []  # in any order: fsum is exact
        tasks = [partial(_append_sum, sums, piece) for (piece,) in _pieces([self.arena.diff])]
        self._run(tasks, self.arena.diff.size)
        return math.sqrt(math.fsum(sums))

    def _decay(self, param: Param) -> float:
        """Return weight_decay times decay_mult, 0 for params that dtrain_param exempts."""
        extra = self.solver.dtrain_param
        if (param.is_bias and extra.no_decay_for_bias) or (
            param.is_normalisation and extra.no_decay_for_norm
        ):
            return 0.0
        return self.solver.weight_decay * param.decay_multiplier

    def _log_step(self, iteration: int) -> None:
        """Say, as Caffe does, when multistep goes a step down."""
        if self.solver.lr_policy == "multistep" and iteration in self.solver.stepvalue:
            log.info("MultiStep Status: Iteration %d, step = %d", iteration, self.current_step(iteration))


def _pieces(arrays: Sequence[Array]) -> Iterator[list[Array]]:
    """Yield views of the same piece of each of `arrays`, one after the other until all is covered."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, PIECE_SIZE):
        yield [array[start : start + PIECE_SIZE] for array in flat]


def _append_sum(sums: list[float], piece: Array) -> None:
    sums.append(sum_of_squares(piece))


def _log_update(param: Param, before: Array) -> None:
    change = before - param.blob.data
    log.info(
        "    [Update] Layer %s, param %s data: %g; diff: %g",
        *(param.layer_name, param.title, np.abs(before).mean(), np.abs(change).mean()),
    )
