"""The interface of update rules: how a gradient becomes a change of a param."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from numpy.typing import NDArray

from dtrain.core.registry import Registry
from dtrain.proto import caffe_pb2

Array = NDArray[Any]


class UpdateRule(ABC):
    """One solver type of prototxt. num_histories: arrays of history that each param keeps (Caffe's order)."""

    num_histories: ClassVar[int] = 1

    def __init__(self, solver: caffe_pb2.SolverParameter) -> None:
        """Take the fields that the rule needs; raise UserError if one can't be."""
        self.solver = solver

    @abstractmethod
    def apply(self, data: Array, diff: Array, history: Sequence[Array], rate: float, iteration: int) -> None:
        """Change `data` and `history` in place by the gradient `diff`, whose contents may be used up.

        data, diff and each history have the same shape. diff is clipped, averaged and regularised. rate is the
        learning rate times lr_mult; iteration counts from 0.
        """


UPDATE_RULES: Registry[type[UpdateRule]] = Registry("solver type")
