"""pycaffe's functions on modes, seeds and ranks, and what there is of layers and solvers."""

from __future__ import annotations

from typing import NoReturn

from dtrain.core.caffe_state import STATE
from dtrain.core.errors import UserError
from dtrain.core.layers import LAYERS
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.proto import caffe_pb2

TRAIN: int = caffe_pb2.TRAIN
TEST: int = caffe_pb2.TEST


def set_mode_cpu() -> None:
    """Compute on the CPU: what every net does in this release."""


def set_mode_gpu() -> NoReturn:
    """Raise UserError: this release has no GPU engine, and a script that counts on one must hear of it."""
    raise UserError("set_mode_gpu: the mode must be CPU in this release; call set_mode_cpu() instead")


def set_device(device: int) -> NoReturn:
    """Raise UserError: this release has no GPU engine."""
    raise UserError(
        f"set_device: there must be no choice of GPU in this release, got {device}; leave the call out and "
        "call set_mode_cpu()"
    )


def set_random_seed(seed: int) -> None:
    """Let nets and solvers that are made from now on in this thread draw their random numbers from `seed`.

    Each gets a seed of its own, in the order in which they are made; a solver file's random_seed comes first.
    """
    STATE.set_seed(seed)


def solver_count() -> int:
    """Return how many solvers share the training data: the ranks, or what set_solver_count has said."""
    return 1 if STATE.solver_count is None else STATE.solver_count


def set_solver_count(count: int) -> None:
    """Say how many solvers share the training data; it must be the number of ranks where a solver is made."""
    if count < 1:
        raise UserError(f"set_solver_count: the count must be at least 1, got {count}")
    STATE.solver_count = count


def solver_rank() -> int:
    """Return which of solver_count() this is, from 0."""
    return STATE.solver_rank


def set_solver_rank(rank: int) -> None:
    """Say which of the solvers this is, from 0."""
    if rank < 0:
        raise UserError(f"set_solver_rank: the rank must be at least 0, got {rank}")
    STATE.solver_rank = rank


def set_multiprocess(multiprocess: bool) -> None:
    """Say whether the solvers are processes. dtrain's ranks always are, so that this changes nothing."""
    STATE.multiprocess = bool(multiprocess)


def has_nccl() -> bool:
    """Return whether gradients can go over NCCL: not in this release."""
    return False


def layer_type_list() -> list[str]:
    """Return the known layer types."""
    return list(LAYERS)


def solver_type_list() -> list[str]:
    """Return the known solver types."""
    return list(UPDATE_RULES)
