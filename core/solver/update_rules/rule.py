"""The interface of update rules: how a gradient becomes a change of a param."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dtrain.core.registry import Registry
from dtrain.proto import caffe_pb2

Array = NDArray[Any]


@dataclass(frozen=True)
class Step:
    """What the update of one param is told beside its arrays.

    rate: the learning rate times lr_mult. iteration: counts from 0. decay: weight_decay times decay_mult for a
    rule that takes it itself, else 0.
    """

    rate: float
    iteration: int
    decay: float = 0.0


class UpdateRule(ABC):
    """One solver type of prototxt.

    num_histories: arrays of history that each param keeps (Caffe's order). refuses_momentum: the rule has no
    use for `momentum`. takes_decay: weight decay is not added to the gradient, the rule applies it itself.
    elementwise: every value is changed by its own gradient and history alone, so that a param may be given in
    pieces; the arrays of other rules have the param's shape.
    """

    num_histories: ClassVar[int] = 1
    refuses_momentum: ClassVar[bool] = False
    takes_decay: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True

    def __init__(self, solver: caffe_pb2.SolverParameter) -> None:
        """Take the fields that the rule needs; they have passed `mistakes`."""
        self.solver = solver
        self._scratch: Array | None = None

    @classmethod
    def mistakes(cls, solver: caffe_pb2.SolverParameter) -> list[tuple[str, str]]:
        """Return (field, what is wrong with it) for each field that can't be with this rule."""
        found = []
        if cls.refuses_momentum and solver.momentum:
            found.append(
                ("momentum", f'momentum must be 0 for type "{solver.type}", got {solver.momentum:g}')
            )
        if cls.takes_decay and solver.regularization_type != "L2":
            found.append(
                (
                    "regularization_type",
                    f'regularization_type must be L2 for type "{solver.type}", which applies weight_decay itself, '
                    f'got "{solver.regularization_type}"',
                )
            )
        return found

    @abstractmethod
    def apply(self, data: Array, diff: Array, history: Sequence[Array], step: Step) -> None:
        """Change `data` and `history` in place by the gradient `diff`, which becomes what it takes off the data, as
        snapshot_diff keeps it and pycaffe shows it.

        data, diff and each history have the same shape. diff is clipped, averaged and, unless the rule takes
        decay itself, regularised.
        """

    def scratch(self, like: Array) -> Array:
        """Return an array like `like` with any contents; it is the same memory at each call."""
        if self._scratch is None or self._scratch.size < like.size or self._scratch.dtype != like.dtype:
            self._scratch = np.empty_like(like, shape=(like.size,))
        return self._scratch[: like.size].reshape(like.shape)


def l2_norm(values: Array) -> float:
    """Return the square root of the sum of squares."""
    flat = values.reshape(-1)
    return math.sqrt(float(np.dot(flat, flat)))


UPDATE_RULES: Registry[type[UpdateRule]] = Registry("solver type")
