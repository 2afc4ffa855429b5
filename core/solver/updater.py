"""The updater: from summed gradients to changed params, in Caffe's order.

    divide by the loss scale → clip by global norm → divide by iter_size → weight decay → update rule

The division by the number of ranks is folded into the same factor. Params are joined (update_runs.py) and cut into
pieces, which stay in the cache while the rule goes over them and which the rank's threads share; no value depends on
who has which piece. Follows caffe's sgd_solver.cpp.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param, trainable
from dtrain.core.registry import Registry
from dtrain.core.snapshots import LossScaleState
from dtrain.core.solver.loss_scale import LossScale
from dtrain.core.solver.lr_policies import learning_rate, multistep_index
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Array, Step, sum_of_squares
from dtrain.core.solver.update_runs import Multipliers, Run, find_runs
from dtrain.data.workers import Workers
from dtrain.dist.cores import num_threads_of
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

PIECE_SIZE = 1 << 17  # values: the arrays of a piece stay in the cache from one operation to the next
SHARED_SIZE = 1 << 20  # values: fewer are updated before another thread has woken up


class Updater:
    """Applies gradients to the learned params of one net.

    params: all owned params, in Caffe's order; those in `arena` learn. history: the rule's arrays, first kind
    for all params, then second kind, as a .solverstate holds them. num_reductions: how often the policy
    "plateau" has lowered the rate. rate_factor: by which what the policy says is multiplied. debug_info: whether to
    log, as Caffe's Net::UpdateDebugInfo does, the mean absolute values of each param before its update and of what
    is taken off. shows_changes: whether diffs become what is taken off, as in Caffe. Where nobody looks at them after
    the update it is better off: what they are then depends on the rule. loss_scale: what diffs are to be divided by,
    None unless use_loss_scale has been called.

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
        self._histories = [
            arena.memory.allocate(arena.data.size, np.float32) for _ in range(self.rule.num_histories)
        ]
        self.history = [array for kind in self._histories for array in _by_param(kind, params, arena)]
        self.num_reductions = 0
        self.rate_factor = 1.0
        self.debug_info = False
        self.shows_changes = True
        self.loss_scale: LossScale | None = None
        self._is_left_out = False  # the update under way, for gradients that are not finite
        self._runs: dict[tuple[int, ...], list[Run]] = {}  # by the ids of the params
        self._iteration, self._rate, self._scale = 0, 0.0, 1.0  # of the update under way
        self._steps: dict[Multipliers, Step] = {}  # likewise
        self._workers = Workers(num_threads or num_threads_of(os.environ))

    @property
    def loss_scale_state(self) -> LossScaleState | None:
        """The loss scale of the gradients to come, if there is one; waits for a GPU that looks after it."""
        return None if self.loss_scale is None else self.loss_scale.state

    def take_up(self, state: LossScaleState | None) -> None:
        """Go on from the loss scale of a snapshot, if it has one and this run too."""
        if self.loss_scale is not None and state is not None:
            self.loss_scale.state = state

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
        return self.solver.clip_gradients >= 0 or self.loss_scale is not None or self.debug_info

    @property
    def not_captured_because(self) -> str:
        """Why updates can't be part of a graph that is captured on a GPU, in words; "" if they can."""
        return "params are updated on the host"

    def use_loss_scale(self, xp: Any) -> Any:
        """Divide diffs by a loss scale from now on; leave updates out by such as are not finite.

        Returns it, float32 (1,) of the array module `xp`: backward must multiply the gradient of the loss by it.
        """
        self.loss_scale = LossScale(xp)
        return self.loss_scale.array

    def apply(self, iteration: int, world_size: int) -> None:
        """Update all params from diffs that are sums over `world_size` ranks and iter_size passes."""
        self.begin(iteration, world_size)
        self.arena.update_reduced()
        self.update(self.params)

    def begin(self, iteration: int, world_size: int) -> None:
        """Begin the update of `iteration`; the diffs are sums as for `apply`, or will be when `update` has them."""
        self._log_step(iteration)
        self._iteration, self._rate = iteration, self.rate(iteration)
        self._scale = self._settled_scale(1.0 / world_size) / self.solver.iter_size
        self._steps.clear()

    def update(self, params: Sequence[Param]) -> None:
        """Update `params`, some of all, whose diffs are sums now, in the arena's memory and nowhere else."""
        if self._is_left_out:
            return
        if not self.debug_info:
            self._update(params)
            return
        for param in trainable(params):
            before = param.blob.data.copy()
            self._update([param])
            _log_update(param, before)

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        self._workers.close()

    def _update(self, params: Sequence[Param]) -> None:
        work: list[tuple[Array, Array, list[Array], Step]] = []
        num_values = 0
        for run in self._runs_of(params):
            for param in run.params:
                param.blob.update_data(self.arena.memory)
            step = self._step(run.multipliers)
            work += [(*piece, step) for piece in run.pieces]
            num_values += run.num_values
        apply = self.rule.apply
        self._run(lambda k: apply(*work[k]), len(work), num_values)

    def _runs_of(self, params: Sequence[Param]) -> list[Run]:
        """Return the runs of `params`, found when they first come."""
        key = tuple(map(id, params))
        runs = self._runs.get(key)
        if runs is None:
            piece_size = PIECE_SIZE if self.rule.elementwise else None
            runs = find_runs(trainable(params), self.arena, self._histories, self._multipliers, piece_size)
            self._runs[key] = runs
        return runs

    def _step(self, multipliers: Multipliers) -> Step:
        """Return what params of these multipliers are told in the update under way."""
        step = self._steps.get(multipliers)
        if step is None:
            rate, decay = self._rate * multipliers[0], self.solver.weight_decay * multipliers[1]
            step = Step(rate, self._iteration, decay, self._scale, self._shows_change)
            self._steps[multipliers] = step
        return step

    @property
    def _shows_change(self) -> bool:
        """Whether the rule is to leave in the diffs what it takes off: asked for, or as fast."""
        return self.shows_changes or not self.rule.spares_diff

    def _run(self, work: Callable[[int], None], count: int, num_values: int) -> None:
        """Call work(0) … work(count − 1), in any order, shared among the threads if they go over enough values."""
        if self._workers.num_threads > 1 and num_values >= SHARED_SIZE:
            self._workers.run(work, count)
            return
        for k in range(count):
            work(k)

    def _settled_scale(self, scale: float) -> float:
        """Return `scale` over the loss scale, less if the gradient's L2 norm is then above clip_gradients.

        The norm is that over all params; whether it is finite decides on the loss scale to come.
        """
        limit = self.solver.clip_gradients
        if limit < 0 and self.loss_scale is None:
            return scale
        norm = self._gradient_norm()
        if self.loss_scale is not None:
            scale /= self.loss_scale.state.value
            self._is_left_out = not self.loss_scale.settle(math.isfinite(norm))
        norm *= scale
        return scale * limit / norm if 0 <= limit < norm else scale

    def _gradient_norm(self) -> float:
        """Return the L2 norm of all diffs."""
        self.arena.update_reduced()
        diff = self.arena.diff
        pieces = [diff[start : start + PIECE_SIZE] for start in range(0, diff.size, PIECE_SIZE)]
        sums = [0.0] * len(pieces)

        def add(k: int) -> None:
            with np.errstate(over="ignore", invalid="ignore"):  # the norm shows it
                sums[k] = sum_of_squares(pieces[k])

        self._run(add, len(pieces), diff.size)
        return math.sqrt(math.fsum(sums))

    def _multipliers(self, param: Param) -> Multipliers:
        """Return lr_mult and decay_mult, the latter 0 for params that dtrain_param exempts."""
        extra = self.solver.dtrain_param
        is_exempt = (param.is_bias and extra.no_decay_for_bias) or (
            param.is_normalisation and extra.no_decay_for_norm
        )
        return param.learning_rate_multiplier, 0.0 if is_exempt else param.decay_multiplier

    def _log_step(self, iteration: int) -> None:
        """Say, as Caffe does, when multistep goes a step down."""
        if self.solver.lr_policy == "multistep" and iteration in self.solver.stepvalue:
            log.info("MultiStep Status: Iteration %d, step = %d", iteration, self.current_step(iteration))


def _by_param(kind: Array, params: Sequence[Param], arena: Arena) -> list[Array]:
    """Return for each of `params` its part of a history that lies as arena.data does; zeros for those elsewhere."""
    places = arena.place_in_data
    flat = (kind[places[id(p)]] if id(p) in places else np.zeros(p.blob.count, np.float32) for p in params)
    return [array.reshape(param.blob.shape) for array, param in zip(flat, params, strict=True)]


def _log_update(param: Param, before: Array) -> None:
    change = before - param.blob.data
    log.info(
        "    [Update] Layer %s, param %s data: %g; diff: %g",
        *(param.layer_name, param.title, np.abs(before).mean(), np.abs(change).mean()),
    )


# By the name of the memory that the params are in; a CPU need not wait for what a GPU takes.
UPDATERS: Registry[type[Updater]] = Registry("memory of params")
UPDATERS.register("host")(Updater)
UPDATERS.register_module("device", "dtrain.core.solver.gpu_updater")
