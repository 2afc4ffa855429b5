"""oneDNN's softmax."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.operations import SoftmaxSpec

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_ACCURATE = 0x30000


class Softmax:
    """Carry out a SoftmaxSpec on x seen as (outer, classes, inner), in row-major order."""

    def __init__(self, spec: SoftmaxSpec, engine: OneDnnEngine) -> None:
        outer, inner = math.prod(spec.x_shape[: spec.axis]), math.prod(spec.x_shape[spec.axis + 1 :])
        shape = (outer, spec.x_shape[spec.axis], *([inner] if inner > 1 else []))
        values, binding = engine.layouts.plain(shape), engine.binding
        what = binding.describe("softmax_forward", dnn.FORWARD, _ACCURATE, values, values, 1)
        gradient = binding.describe("softmax_backward", _ACCURATE, values, values, values, 1, what)
        self._forward = dnn.Primitive(binding, what, {dnn.SRC: values, dnn.DST: values})
        operands = {dnn.DST: values, dnn.DIFF_DST: values, dnn.DIFF_SRC: values}
        self._backward = dnn.Primitive(binding, gradient, operands)

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y = exp(x − max x) / Σ exp(x − max x)."""
        self._forward.run(x.read_data(), y.write_data())

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = y·(dy − Σ dy·y)."""
        self._backward.run(y.read_data(), y.read_diff(), x.write_diff())
