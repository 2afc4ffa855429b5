"""Convolutions, inner products and sums with what comes behind them: done to each value before it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.fused_weighted import FusedWeightedBase
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.convolution import Convolution, create_convolution
from dtrain.core.engines.onednn.eltwise import EltwiseSum, common_memory
from dtrain.core.engines.onednn.inner_product import create_inner_product
from dtrain.core.engines.onednn.relu import VISIBLE_RELU, ReluGradient
from dtrain.core.engines.operations import (
    ConvolutionSpec,
    EltwiseSpec,
    FusedSumSpec,
    FusedWeightedSpec,
    WeightedOperation,
)
from dtrain.core.tensor import Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine


class FusedWeighted(FusedWeightedBase):
    """Carry out a FusedWeightedSpec by post-operations."""

    def __init__(self, spec: FusedWeightedSpec, engine: OneDnnEngine) -> None:
        self.relu = spec.relu
        post_ops = VISIBLE_RELU if spec.relu else ()
        self.operation: WeightedOperation
        if isinstance(spec.operation, ConvolutionSpec):
            convolution = create_convolution(spec.operation, engine, post_ops, spec.adds)
            _check_that_code_is_the_same(convolution, create_convolution(spec.operation, engine))
            self.operation, shape = convolution, convolution.y_shape
        elif spec.adds:
            raise NotOffered("with a blob added")
        else:
            shape = spec.operation.num_rows, spec.operation.num_outputs
            self.operation = create_inner_product(spec.operation, engine, post_ops)
        self._relu = ReluGradient(engine, shape) if spec.relu else None
        self._copy = EltwiseSum(EltwiseSpec(shape, "SUM", (1.0,)), engine)  # makes nothing until it runs

    def pass_on(self, y: Blob, target: Blob) -> None:
        """Overwrite target.diff by y.diff, or what relu lets through of it."""
        if self._relu is not None:
            self._relu.run(y, target)
        else:
            self._copy.backward([target], y, [True])


class FusedSum(EltwiseSum):
    """Carry out a FusedSumSpec of two blobs."""

    def __init__(self, spec: FusedSumSpec, engine: OneDnnEngine) -> None:
        if spec.sum.operation != "SUM" or spec.sum.coeffs != (1.0, 1.0):
            raise NotOffered
        super().__init__(spec.sum, engine)
        self._relu = ReluGradient(engine, self.shape)
        self._adds: dict[Memory, dnn.Primitive] = {}

    def forward(self, xs: Sequence[Blob], y: Blob) -> None:
        """Compute y.data."""
        memory = common_memory(self.layouts, [x.data_tensor for x in xs], self.shape)
        if memory not in self._adds:
            self._adds[memory] = self._make_add(memory)
        self._adds[memory].run(*(x.read_data(memory) for x in xs), y.write_data(memory))

    def backward(self, xs: Sequence[Blob], y: Blob, wanted: Sequence[bool]) -> None:
        """Compute dx_i = dy·(y > 0) once, and copy it."""
        first, *others = [x for x, is_wanted in zip(xs, wanted, strict=True) if is_wanted]
        self._relu.run(y, first)
        for other in others:
            memory = self.layouts.of(first.diff_tensor, self.shape)
            self._sum(memory, (1.0,)).run(first.read_diff(memory), other.write_diff(memory))

    def _make_add(self, memory: Memory) -> dnn.Primitive:
        values = self.layouts.flat(memory, self.shape)
        what = self.binding.describe("binary", dnn.ADD, values, values, values, post_ops=VISIBLE_RELU)
        return dnn.Primitive(self.binding, what, dict.fromkeys((dnn.SRC, dnn.SRC_1, dnn.DST), values))


def _check_that_code_is_the_same(fused: Convolution, plain: Convolution) -> None:
    """Raise NotOffered where oneDNN would go another way, which is slower, than without what comes behind."""
    if fused.what.implementation() != plain.what.implementation():
        raise NotOffered
