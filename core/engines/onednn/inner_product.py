"""The oneDNN engine's inner product: three matrix products on plain arrays."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import InnerProductSpec, Wanted

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine


class InnerProduct:
    """Carry out an InnerProductSpec: M rows, K inputs, N outputs. Gradients are added to by the product itself."""

    def __init__(self, spec: InnerProductSpec, engine: OneDnnEngine) -> None:
        self.spec = spec
        self._sgemm = engine.binding.functions.dnnl_sgemm
        self._check = engine.binding.check

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y = x·Wᵀ + b."""
        rows, inputs, outputs = self._sizes
        y_data = y.write_data().reshape(rows, outputs)
        if bias is not None:
            y_data[...] = bias.read_data()
        by_weight = (not self.spec.transposed, weight.read_data())
        self._multiply((rows, outputs, inputs), (False, x.read_data()), by_weight, y_data, bias is not None)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute dx = dy·W, dW += dyᵀ·x, db += Σ dy."""
        rows, inputs, outputs = self._sizes
        y_diff = y.read_diff()
        if wanted.weight:
            left, right = (True, y_diff), (False, x.read_data())
            sizes = (outputs, inputs, rows)
            if self.spec.transposed:
                left, right = (True, x.read_data()), (False, y_diff)
                sizes = (inputs, outputs, rows)
            self._multiply(sizes, left, right, weight.update_diff(), True)
        if wanted.bias and bias is not None:
            bias_diff = bias.update_diff()
            bias_diff += y_diff.reshape(rows, outputs).sum(axis=0)
        if wanted.x:
            by_weight = (self.spec.transposed, weight.read_data())
            self._multiply((rows, inputs, outputs), (False, y_diff), by_weight, x.write_diff(), False)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.spec.num_rows, self.spec.num_inputs, self.spec.num_outputs

    def _multiply(
        self,
        sizes: tuple[int, int, int],
        left: tuple[bool, Any],
        right: tuple[bool, Any],
        result: Any,
        accumulates: bool,
    ) -> None:
        """Compute result (m, n) = left (m, k)·right (k, n), or add it; an operand is (is transposed, array)."""
        m, n, k = map(ctypes.c_int64, sizes)
        letters = [ctypes.c_char(b"T" if is_transposed else b"N") for is_transposed, _ in (left, right)]
        arrays = [ctypes.c_void_p(array.ctypes.data) for array in (left[1], right[1], result)]
        steps = (m if left[0] else k, k if right[0] else n, n)
        one, beta = ctypes.c_float(1), ctypes.c_float(accumulates)
        status = self._sgemm(
            *(*letters, m, n, k, one, arrays[0], steps[0], arrays[1], steps[1], beta, arrays[2], steps[2])
        )
        self._check(status, "sgemm")
