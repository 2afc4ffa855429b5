"""NCCL: pycaffe's object for training on several GPUs, here on the ranks that an MPI launcher started."""

from __future__ import annotations

import secrets
from typing import Protocol

from dtrain.core.solver.solver import Solver as CoreSolver

_UID_BYTES = 128  # as NCCL's own


class _HasCore(Protocol):
    @property
    def core(self) -> CoreSolver: ...


class NCCL:
    """The ranks of a solver, for scripts that set up several of them as caffe's train.py does.

    dtrain's solvers sum the gradients over their ranks by themselves, so that add_callback(nccl) and
    after_backward(nccl) have nothing left to do; ranks are started by mpirun instead of by the script. A script
    that has said another set_solver_count than there are ranks is refused when it makes its solver.
    """

    def __init__(self, solver: _HasCore, uid: bytes | str = b"") -> None:
        self._solver = solver.core

    @staticmethod
    def new_uid() -> bytes:
        """Return 128 random bytes, as NCCL's ids are; dtrain's ranks find each other without."""
        return secrets.token_bytes(_UID_BYTES)

    def bcast(self) -> None:
        """Give every rank the params of rank 0. Collective."""
        self._solver.broadcast_params()
