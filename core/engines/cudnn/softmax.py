"""cuDNN's softmax."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, address
from dtrain.core.engines.cudnn.by_memory import Unary
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.operations import SoftmaxSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class Softmax(Unary):
    """Carry out a SoftmaxSpec on x seen as (outer, classes, inner, 1), in plain float32."""

    def __init__(self, spec: SoftmaxSpec, engine: CudnnEngine) -> None:
        outer, inner = math.prod(spec.x_shape[: spec.axis]), math.prod(spec.x_shape[spec.axis + 1 :])
        super().__init__(engine, spec, (outer, spec.x_shape[spec.axis], inner, 1))

    def for_data(self, x: Blob) -> DeviceMemory:
        """Return the plain memory: few classes are worth no other, and probabilities want all their bits."""
        return self.memories.plain

    def run_forward(self, x: Blob, y: Blob) -> None:
        """Compute y = exp(x − max x) / Σ exp(x − max x)."""
        plain = self.memories.plain
        values = self.tensor(plain)
        x_data, y_data = address(x.read_data(plain)), address(y.write_data(plain))
        self.binding.run(
            "SoftmaxForward", dnn.ACCURATE, dnn.PER_PLACE, ONE, values, x_data, ZERO, values, y_data
        )

    def run_backward(self, x: Blob, y: Blob) -> None:
        """Compute dx = y·(dy − Σ dy·y)."""
        plain = self.memories.plain
        values = self.tensor(plain)
        y_data, y_diff = address(y.read_data(plain)), address(y.read_diff(plain))
        x_diff = address(x.write_diff(plain))
        self.binding.run(
            "SoftmaxBackward",
            *(dnn.ACCURATE, dnn.PER_PLACE, ONE, values, y_data, values, y_diff, ZERO, values, x_diff),
        )
