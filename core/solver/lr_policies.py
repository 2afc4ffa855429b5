"""Learning-rate policies: the rate of iteration i, from the solver's fields.

Pure functions of (solver, i); `multistep` alone has a state in Caffe (current_step), which is a function of i
as well, except that a resumed run may start in the middle: it is the number of stepvalues ≤ i.
Follows caffe's sgd_solver.cpp (GetLearningRate).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

from dtrain.core.errors import UserError
from dtrain.core.registry import Registry
from dtrain.proto import caffe_pb2

Policy = Callable[[caffe_pb2.SolverParameter, int], float]

LR_POLICIES: Registry[Policy] = Registry("lr_policy")

NEEDED_FIELDS = {
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma",),
    "poly": ("power", "max_iter"),
    "sigmoid": ("gamma", "stepsize"),
}


def check_policy(solver: caffe_pb2.SolverParameter) -> None:
    """Raise UserError if the policy is unknown or a field that it needs is missing."""
    LR_POLICIES[solver.lr_policy]
    missing = [field for field in NEEDED_FIELDS.get(solver.lr_policy, ()) if not solver.HasField(field)]
    if missing:
        raise UserError(f'lr_policy "{solver.lr_policy}" needs {" and ".join(missing)}')


def learning_rate(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """Return the learning rate of `iteration` (from 0)."""
    return LR_POLICIES[solver.lr_policy](solver, iteration)


def multistep_index(solver: caffe_pb2.SolverParameter, iteration: int) -> int:
    """Return Caffe's current_step at `iteration`: how many stepvalues have been reached."""
    return bisect_right(sorted(solver.stepvalue), iteration)


@LR_POLICIES.register("fixed")
def fixed(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr."""
    return solver.base_lr


@LR_POLICIES.register("step")
def step(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^⌊i / stepsize⌋."""
    return solver.base_lr * solver.gamma ** (iteration // solver.stepsize)


@LR_POLICIES.register("exp")
def exp(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^i."""
    return solver.base_lr * solver.gamma**iteration


@LR_POLICIES.register("inv")
def inv(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr · (1 + gamma·i)^−power."""
    return float(solver.base_lr * (1 + solver.gamma * iteration) ** -solver.power)


@LR_POLICIES.register("multistep")
def multistep(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr · gamma^(number of stepvalues ≤ i)."""
    return solver.base_lr * solver.gamma ** multistep_index(solver, iteration)


@LR_POLICIES.register("poly")
def poly(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr · (1 − i / max_iter)^power, and 0 from max_iter on."""
    return float(solver.base_lr * max(0.0, 1 - iteration / solver.max_iter) ** solver.power)


@LR_POLICIES.register("sigmoid")
def sigmoid(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """base_lr / (1 + exp(−gamma·(i − stepsize)))."""
    exponent = solver.gamma * (iteration - solver.stepsize)
    small = math.exp(-abs(exponent))  # exp(−exponent) would overflow long before stepsize
    return solver.base_lr * (1.0 if exponent >= 0 else small) / (1 + small)
