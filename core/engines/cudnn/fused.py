"""Convolutions and inner products with what comes behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.convolution import Convolution
from dtrain.core.engines.cudnn.epilogue import pass_gradient
from dtrain.core.engines.cudnn.inner_product import InnerProduct
from dtrain.core.engines.cudnn.memory import bits
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.fused_weighted import FusedWeightedBase
from dtrain.core.engines.operations import ConvolutionSpec, FusedWeightedSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class FusedWeighted(FusedWeightedBase):
    """Carry out a FusedWeightedSpec by a kernel behind the operation.

    cuDNN could do the sum and the maximum within the convolution, but its maximum makes NaN 0, and a net that has
    diverged would go on as if nothing were wrong: they are done with the bias, in one pass over the result.
    """

    def __init__(self, spec: FusedWeightedSpec, engine: CudnnEngine) -> None:
        self.engine = engine
        self.memories = engine.memories
        self.relu = spec.relu
        self.operation: Convolution | InnerProduct
        if isinstance(spec.operation, ConvolutionSpec):
            self.operation = Convolution(spec.operation, engine, spec.adds, spec.relu)
        elif spec.adds:
            raise NotOffered("with a blob added")
        else:
            self.operation = InnerProduct(spec.operation, engine, spec.relu)

    def pass_on(self, y: Blob, target: Blob) -> None:
        """Overwrite target.diff by y.diff, or what relu lets through of it."""
        tensor = y.data_tensor if self.relu else y.diff_tensor
        memory = self.memories.of(tensor, self.operation.y_shape)
        y_diff = y.read_diff(memory)
        diff = target.write_diff(memory)
        if self.relu:
            pass_gradient(self.engine, y.read_data(memory), y_diff, diff)
        else:
            bits(diff)[...] = bits(y_diff)
