"""The interface of update rules: how a gradient becomes a change of a param."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dtrain.core.registry import Registry
from dtrain.proto import caffe_pb2

Array = NDArray[Any]

# values: in one dot product, so few that no BLAS shares it among threads, by whose number its last bits would differ
_DOT_SIZE = 1 << 13


@dataclass(frozen=True)
class Step:
    """What the update of one param is told beside its arrays.

    rate: the learning rate times lr_mult. iteration: counts from 0. decay: weight_decay times decay_mult. scale: what
    makes the diff, a sum, the mean and clipped gradient. shows_change: whether the diff is to become what is taken
    off the data; if not, it is only read, which spares memory a pass.
    """

    rate: float
    iteration: int
    decay: float = 0.0
    scale: float = 1.0
    shows_change: bool = True


class UpdateRule(ABC):
    """One solver type of prototxt.

    num_histories: arrays of history that each param keeps (Caffe's order). refuses_momentum: the rule has no
    use for `momentum`. takes_decay: the rule does not add weight decay to the gradient, but applies it itself.
    elementwise: every value is changed by its own gradient and history alone, so that a param may be given in
    pieces; the arrays of other rules have the param's shape. spares_diff: the rule is faster where the diff need not
    show the change; others had better work in it (Adam takes 8 % longer in memory of its own).
    """

    num_histories: ClassVar[int] = 1
    refuses_momentum: ClassVar[bool] = False
    takes_decay: ClassVar[bool] = False
    elementwise: ClassVar[bool] = True
    spares_diff: ClassVar[bool] = False

    def __init__(self, solver: caffe_pb2.SolverParameter) -> None:
        """Take the fields that the rule needs; they have passed `mistakes`."""
        self.solver = solver
        self._lent = threading.local()

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
        """Change `data` and `history` in place by the gradient, scale · `diff`, with weight decay.

        `diff` becomes what it takes off the data, as snapshot_diff keeps it and pycaffe shows it, or stays as it is
        (step.shows_change). data, diff and each history have the same shape. Called by several threads, for other
        values each.
        """

    def regularise(self, data: Array, diff: Array, step: Step, times: float = 1.0) -> Array:
        """Return times · (scale · diff + decay · w), for L1 with the sign of w, in an array for the caller to change:
        `diff` itself if it is to show the change.

        What a rule multiplies the gradient by anyway it gives as `times`, which so costs nothing.
        """
        gradient = diff if step.shows_change else self.scratch(diff, "gradient")
        if gradient is not diff or step.scale * times != 1.0:
            np.multiply(diff, number(step.scale * times, diff), out=gradient)
        if not step.decay:
            return gradient
        scratch = self.scratch(data)
        if self.solver.regularization_type == "L2":
            np.multiply(data, number(step.decay * times, data), out=scratch)
        else:
            np.sign(data, out=scratch)
            scratch *= number(step.decay * times, data)
        gradient += scratch
        return gradient

    def scratch(self, like: Array, purpose: str = "") -> Array:
        """Return an array like `like` with any contents: the same memory at each call of one thread for a purpose."""
        mine: dict[str, Array] = self._lent.__dict__
        lent = mine.get(purpose)
        if lent is None or lent.size < like.size or lent.dtype != like.dtype:
            lent = mine[purpose] = np.empty_like(like, shape=(like.size,))
        return lent[: like.size].reshape(like.shape)


def number(value: float, like: Array) -> Any:
    """Return `value` in the dtype of the array `like`, for arithmetic with it: an array without axes, not to be
    changed, since numpy is done with that in half the time that it takes with a Python float, and with the same bits.

    On a GPU it is a scalar, as arrays of the host don't meet those of the device.
    """
    return _zero_axes(value, like.dtype) if isinstance(like, np.ndarray) else like.dtype.type(value)


@lru_cache(maxsize=64)
def _zero_axes(value: float, dtype: np.dtype[Any]) -> Array:
    return np.array(value, dtype)


def l2_norm(values: Array) -> float:
    """Return the square root of the sum of squares."""
    return math.sqrt(sum_of_squares(values))


def sum_of_squares(values: Array) -> float:
    """Return the sum of squares, the same to the last bit on any number of threads."""
    flat = values.reshape(-1)
    pieces = (flat[start : start + _DOT_SIZE] for start in range(0, flat.size, _DOT_SIZE))
    return math.fsum(float(np.dot(piece, piece)) for piece in pieces)


UPDATE_RULES: Registry[type[UpdateRule]] = Registry("solver type")
