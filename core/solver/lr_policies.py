"""Learning-rate policies: the rate of iteration i, from the solver's fields.

Pure functions of (solver, i, number of reductions). Caffe keeps a state for `multistep` (current_step, which
rises by one an iteration at most); here it is a function of i as well, the number of stepvalues ≤ i. `plateau`
alone has a state, the number of reductions so far, which the monitor counts (monitor.py).
Follows caffe's sgd_solver.cpp (GetLearningRate); cosine, one_cycle, plateau and warmup are not in Caffe.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

import numpy as np

from dtrain.core.errors import UserError
from dtrain.core.registry import Registry
from dtrain.proto import caffe_pb2

Policy = Callable[[caffe_pb2.SolverParameter, int, int], float]

MAX_RATE = float(np.finfo(np.float32).max)

LR_POLICIES: Registry[Policy] = Registry("lr_policy")


def learning_rate(
    solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int = 0, factor: float = 1.0
) -> float:
    """Return the learning rate of `iteration` (from 0), for "plateau" after so many reductions.

    factor: by which what the policy says is multiplied, base_lr and min_lr alike (lr_scaling.py).
    Over the first warmup_iter iterations the rate is on the straight line from warmup_start_lr, which stays as it
    stands, to `factor` times what the policy says at iteration warmup_iter. Raises UserError where the rate is
    beyond all numbers.
    """
    extra = solver.dtrain_param
    if iteration >= extra.warmup_iter:
        return _policy_rate(solver, iteration, num_reductions, factor)
    target = _policy_rate(solver, extra.warmup_iter, num_reductions, factor)
    return extra.warmup_start_lr + (target - extra.warmup_start_lr) * iteration / extra.warmup_iter


def _policy_rate(
    solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int, factor: float
) -> float:
    try:
        rate = factor * LR_POLICIES[solver.lr_policy](solver, iteration, num_reductions)
    except (OverflowError, ZeroDivisionError):
        rate = math.inf
    if not rate <= MAX_RATE:
        raise UserError(
            f'lr_policy "{solver.lr_policy}" must give a learning rate that float32 can hold, got {rate:g} at '
            f"iteration {iteration}; see gamma ({solver.gamma:g}) and power ({solver.power:g})"
        )
    return float(rate)


def multistep_index(solver: caffe_pb2.SolverParameter, iteration: int) -> int:
    """Return Caffe's current_step at `iteration`: how many stepvalues have been reached."""
    return bisect_right(list(solver.stepvalue), iteration)


def progress(solver: caffe_pb2.SolverParameter, iteration: int) -> float:
    """Return which part of max_iter is behind, 0 to 1."""
    return min(1.0, iteration / solver.max_iter) if solver.max_iter else 1.0


@LR_POLICIES.register("fixed")
def fixed(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr."""
    return solver.base_lr


@LR_POLICIES.register("step")
def step(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr · gamma^⌊i / stepsize⌋."""
    return solver.base_lr * solver.gamma ** (iteration // solver.stepsize)


@LR_POLICIES.register("exp")
def exp(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr · gamma^i."""
    return solver.base_lr * solver.gamma**iteration


@LR_POLICIES.register("inv")
def inv(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr · (1 + gamma·i)^−power."""
    return float(solver.base_lr * (1 + solver.gamma * iteration) ** -solver.power)


@LR_POLICIES.register("multistep")
def multistep(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr · gamma^(number of stepvalues ≤ i)."""
    return solver.base_lr * solver.gamma ** multistep_index(solver, iteration)


@LR_POLICIES.register("poly")
def poly(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr · (1 − i / max_iter)^power, and from max_iter on 0 (with power 0 base_lr)."""
    left = 1 - progress(solver, iteration)
    if not left:
        return 0.0 if solver.power else solver.base_lr
    return float(solver.base_lr * left**solver.power)


@LR_POLICIES.register("sigmoid")
def sigmoid(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr / (1 + exp(−gamma·(i − stepsize)))."""
    exponent = solver.gamma * (iteration - solver.stepsize)
    small = math.exp(-abs(exponent))  # exp(−exponent) would overflow long before stepsize
    return solver.base_lr * (1.0 if exponent >= 0 else small) / (1 + small)


@LR_POLICIES.register("cosine")
def cosine(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """Half a cosine from base_lr at i = 0 down to min_lr at max_iter and after (Loshchilov and Hutter, 2016)."""
    return _glide(solver.base_lr, solver.dtrain_param.min_lr, progress(solver, iteration))


@LR_POLICIES.register("one_cycle")
def one_cycle(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """Half a cosine up from base_lr / start_divisor to base_lr, which is reached at peak_fraction · max_iter, then
    half a cosine down to base_lr / (start_divisor · end_divisor) at max_iter and after (Smith and Topin, 2017).

    The momentum stays as it is.
    """
    extra, done = solver.dtrain_param, progress(solver, iteration)
    low, peak = solver.base_lr / extra.start_divisor, solver.base_lr
    if done < extra.peak_fraction:
        return _glide(low, peak, done / extra.peak_fraction)
    left = 1 - extra.peak_fraction
    return _glide(peak, low / extra.end_divisor, (done - extra.peak_fraction) / left if left else 1.0)


@LR_POLICIES.register("plateau")
def plateau(solver: caffe_pb2.SolverParameter, iteration: int, num_reductions: int) -> float:
    """base_lr · gamma^(number of reductions), at least min_lr."""
    return max(solver.dtrain_param.min_lr, solver.base_lr * solver.gamma**num_reductions)


def _glide(start: float, end: float, part: float) -> float:
    """Return the value at `part` (0 to 1) of half a cosine from start to end."""
    return end + (start - end) * (1 + math.cos(math.pi * part)) / 2
