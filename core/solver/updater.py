"""The updater: from summed gradients to changed params, in Caffe's order.

    clip by global norm → divide by iter_size → weight decay → update rule

The division by the number of ranks is folded into the same factor. Follows caffe's sgd_solver.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from dtrain.core.errors import UserError
from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.lr_policies import check_policy, learning_rate
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Array
from dtrain.proto import caffe_pb2

REGULARIZATIONS = ("L2", "L1")


class Updater:
    """Applies gradients to the learned params of one net.

    params: all owned params, in Caffe's order; those in `arena` learn. history: the rule's arrays, first kind
    for all params, then second kind, as a .solverstate holds them.

    The fields of `solver` have passed check_update.
    """

    def __init__(self, solver: caffe_pb2.SolverParameter, params: Sequence[Param], arena: Arena) -> None:
        self.solver = solver
        self.params = params
        self.arena = arena
        self.rule = UPDATE_RULES[solver.type](solver)
        self.history: list[Array] = [
            np.zeros(param.blob.shape, np.float32) for _ in range(self.rule.num_histories) for param in params
        ]

    def rate(self, iteration: int) -> float:
        """Return the learning rate of `iteration`."""
        return learning_rate(self.solver, iteration)

    def apply(self, iteration: int, world_size: int) -> None:
        """Update all params from diffs that are sums over `world_size` ranks and iter_size passes."""
        rate = self.rate(iteration)
        scale = self._clipped_scale(1.0 / world_size) / self.solver.iter_size
        for k, param in enumerate(self.params):
            multiplier = param.learning_rate_multiplier
            if not multiplier:
                continue
            data, diff = param.blob.data, param.blob.diff
            if scale != 1.0:
                diff *= np.float32(scale)
            self._add_decay(data, diff, self.solver.weight_decay * param.decay_multiplier)
            history = self.history[k :: len(self.params)]
            self.rule.apply(data, diff, history, rate * multiplier, iteration)

    def _clipped_scale(self, scale: float) -> float:
        """Return `scale`, less if the scaled gradient's L2 norm over all params is above clip_gradients."""
        limit = self.solver.clip_gradients
        if limit < 0:
            return scale
        norm = math.sqrt(float(np.dot(self.arena.diff, self.arena.diff))) * scale
        return scale * limit / norm if norm > limit else scale

    def _add_decay(self, data: Array, diff: Array, decay: float) -> None:
        if not decay:
            return
        if self.solver.regularization_type == "L2":
            diff += np.float32(decay) * data
        else:
            diff += np.float32(decay) * np.sign(data)


def check_update(solver: caffe_pb2.SolverParameter) -> list[tuple[str, str]]:
    """Return (field, what is wrong with it) for each field of `solver` from which no updater can be made."""
    checks: dict[str, Callable[[], object]] = {
        "type": lambda: UPDATE_RULES[solver.type](solver),
        "lr_policy": lambda: check_policy(solver),
        "regularization_type": lambda: _check_regularization(solver.regularization_type),
    }
    mistakes = []
    for field, check in checks.items():
        try:
            check()
        except UserError as error:
            mistakes += [(field, problem) for problem in error.problems]
    return mistakes


def _check_regularization(name: str) -> None:
    if name not in REGULARIZATIONS:
        raise UserError(f'regularization_type must be {" or ".join(REGULARIZATIONS)}, got "{name}"')
