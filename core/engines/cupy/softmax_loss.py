"""The loss of SoftmaxWithLoss and its gradient on a GPU: two launches forward and one backward, not dozens.

Nothing comes to the host, labels least of all, so that it can be captured into a graph.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cupy.kernels import C_TYPES, NUM_THREADS, Kernel
from dtrain.core.engines.operations import SoftmaxLossSpec

_MAX_SUMS = 512  # whatever the GPU, so that the order of additions is the same on every one


class SoftmaxLoss:
    """Carry out a SoftmaxLossSpec by kernels of our own."""

    def __init__(self, spec: SoftmaxLossSpec, engine: Any) -> None:
        self.spec = spec
        self.xp = engine.xp
        self.memory = engine.memory
        num_outer, num_inner = math.prod(spec.x_shape[: spec.axis]), math.prod(spec.x_shape[spec.axis + 1 :])
        self.num_places = num_outer * num_inner
        ignored = spec.ignore_label
        self._places = (
            np.int64(num_inner),
            np.int32(spec.x_shape[spec.axis]),
            np.int32(ignored is not None),
            np.int32(ignored or 0),
            np.float64(spec.smoothing),
        )
        self._num_blocks = max(1, min(-(-self.num_places // NUM_THREADS), _MAX_SUMS))
        self._sums = self.xp.zeros(2 * self._num_blocks, np.float64)
        self._divisor = self.xp.ones(1, np.float64)
        self._kernels: dict[tuple[str, str], Kernel] = {}

    def forward(self, probabilities: Blob, labels: Blob, loss: Blob) -> None:
        """Compute loss.data."""
        p, given = probabilities.read_data(self.memory), labels.read_data(self.memory)
        self._kernel("place_losses", p).launch(
            (self._num_blocks,),
            (NUM_THREADS,),
            *(p, given, np.int64(self.num_places), *self._places, np.float64(self.spec.smallest), self._sums),
        )
        target = loss.write_data(self.memory)
        divisor = np.float64(self.spec.divisor)
        self._kernel("settle_loss", p).launch(
            (1,), (1,), self._sums, np.int32(self._num_blocks), divisor, target, self._divisor
        )

    def backward(self, probabilities: Blob, labels: Blob, weight: float, x: Blob) -> None:
        """Compute x.diff, what the last forward has divided by included."""
        p, given = probabilities.read_data(self.memory), labels.read_data(self.memory)
        of_loss = np.float64(weight), self._divisor, x.write_diff(self.memory)
        self._kernel("loss_gradient", p).run(p.size, p, given, np.int64(p.size), *self._places, *of_loss)

    def _kernel(self, name: str, values: Any) -> Kernel:
        dtype = values.dtype.name
        if (name, dtype) not in self._kernels:
            self._kernels[name, dtype] = Kernel(self.xp, name, "softmax_loss", VALUE=C_TYPES[dtype])
        return self._kernels[name, dtype]
