"""The inner product: three matrix products by cuBLAS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.epilogue import Epilogue
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import InnerProductSpec, Wanted

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class InnerProduct:
    """Carry out an InnerProductSpec: M rows, K inputs, N outputs; then max(·, 0) with `relu`.

    In 16 bits what is multiplied is rounded; what comes out is float32, the weight's gradient too.
    """

    def __init__(self, spec: InnerProductSpec, engine: CudnnEngine, relu: bool = False) -> None:
        sizes = spec.num_rows, spec.num_inputs, spec.num_outputs
        if 0 in sizes:
            raise NotOffered(f"of {sizes[0]} rows, {sizes[1]} inputs and {sizes[2]} outputs")
        self.engine = engine
        self.plain = engine.memories.plain
        self.matrices = engine.matrices
        self.spec = spec
        self.x_shape = spec.num_rows, spec.num_inputs
        self.y_shape = spec.num_rows, spec.num_outputs
        inputs_and_outputs = spec.num_inputs, spec.num_outputs
        self.weight_shape = inputs_and_outputs if spec.transposed else inputs_and_outputs[::-1]
        self._epilogue = Epilogue(engine, self.y_shape, spec.bias, False, relu)

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y = x·Wᵀ + b."""
        y_data = y.write_data(self.plain)
        x_data = self._read(x, self.x_shape)
        self.matrices.multiply(x_data, self._read_kn(weight), y_data.reshape(self.y_shape))
        self._epilogue.run(y_data, self.plain, bias)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute dx = dy·W, dW += dyᵀ·x, db += Σ dy."""
        y_diff = y.read_diff(self.engine.memories.best(self.y_shape)).reshape(self.y_shape)
        if wanted.weight:
            diff, is_sum = weight.join_diff(self.plain)
            x_data = self._read(x, self.x_shape)
            left, right = (x_data, y_diff) if self.spec.transposed else (y_diff, x_data)
            self.matrices.multiply(left.T, right, diff.reshape(self.weight_shape), adds=is_sum)
        if wanted.bias and bias is not None:
            bias.add_to_diff(y.read_diff(self.plain).reshape(self.y_shape).sum(axis=0), self.plain)
        if wanted.x:
            target = x.write_diff(self.plain).reshape(self.x_shape)
            self.matrices.multiply(y_diff, self._read_kn(weight).T, target)

    def _read_kn(self, weight: Blob) -> Any:
        """Return the weight as (K, N)."""
        values = self._read(weight, self.weight_shape)
        return values if self.spec.transposed else values.T

    def _read(self, blob: Blob, shape: tuple[int, int]) -> Any:
        """Return a blob's data as a matrix of the type that is multiplied."""
        return blob.read_data(self.engine.memories.best(shape)).reshape(shape)
