"""The reference engine's inner product: three matrix products."""

from __future__ import annotations

from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import InnerProductSpec, Wanted


class InnerProduct:
    """Carry out an InnerProductSpec: M rows, K inputs, N outputs."""

    def __init__(self, spec: InnerProductSpec, engine: Engine) -> None:
        self.spec = spec
        self.matmul = engine.matmul
        self.memory = engine.memory

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y = x·Wᵀ + b."""
        x_data = self._rows(x.read_data(self.memory), self.spec.num_inputs)
        y_data = self._rows(y.write_data(self.memory), self.spec.num_outputs)
        self.matmul(x_data, self._kn(weight.read_data(self.memory)), out=y_data)
        if bias is not None:
            y_data += bias.read_data(self.memory)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute dx = dy·W, dW += dyᵀ·x, db += Σ dy."""
        y_diff = self._rows(y.read_diff(self.memory), self.spec.num_outputs)
        if wanted.weight:
            x_data = self._rows(x.read_data(self.memory), self.spec.num_inputs)
            left, right = (x_data, y_diff) if self.spec.transposed else (y_diff, x_data)
            self._add_product(left.T, right, weight)
        if wanted.bias and bias is not None:
            bias.add_to_diff(y_diff.sum(axis=0), self.memory)
        if wanted.x:
            x_diff = self._rows(x.write_diff(self.memory), self.spec.num_inputs)
            self.matmul(y_diff, self._kn(weight.read_data(self.memory)).T, out=x_diff)

    def _add_product(self, left: Any, right: Any, weight: Blob) -> None:
        diff, is_sum = weight.join_diff(self.memory)
        if is_sum:
            diff += self.matmul(left, right)
        else:
            self.matmul(left, right, out=diff)

    def _rows(self, array: Any, num_columns: int) -> Any:
        return array.reshape(self.spec.num_rows, num_columns)

    def _kn(self, weight: Any) -> Any:
        return weight if self.spec.transposed else weight.T
