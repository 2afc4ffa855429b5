"""Local response normalisation across channels: by cuDNN in plain memory, by own kernels with channels last."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, Descriptor, address
from dtrain.core.engines.cudnn.by_memory import Unary
from dtrain.core.engines.cudnn.memory import ChannelsLast
from dtrain.core.engines.cupy.kernels import C_TYPES
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import LRNSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

# As cudnn_ops.h has them: how many neighbours, and the least k and beta.
MOST_NEIGHBOURS, LEAST_K, LEAST_BETA = 16, 1e-5, 0.01

_PACK = 8  # channels that a thread of a kernel has, if that divides them


class LRN(Unary):
    """Carry out an LRNSpec across channels; cuDNN's formula is Caffe's, alpha divided by the number of neighbours.

    cuDNN wants y again in backward, which layers may write over by then, so that it is computed once more.
    """

    def __init__(self, spec: LRNSpec, engine: CudnnEngine) -> None:
        if spec.within_channel:
            raise NotOffered("within channels")
        if spec.local_size > MOST_NEIGHBOURS or spec.k < LEAST_K or spec.beta < LEAST_BETA:
            raise NotOffered(f"of {spec.local_size} neighbours with k {spec.k:g} and beta {spec.beta:g}")
        super().__init__(engine, spec, spec.x_shape)
        arguments = spec.local_size, spec.alpha, spec.beta, spec.k
        self._what = Descriptor(self.binding, "LRN", "SetLRNDescriptor", *arguments)

    def run_forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        memory = self.for_data(x)
        x_data, y_data = x.read_data(memory), y.write_data(memory)
        if isinstance(memory, ChannelsLast):
            self._run_kernel("lrn", x_data, y_data)
        else:
            self._normalise(x_data, y_data)

    def run_backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff."""
        memory = self.for_data(x)
        x_data, y_diff, x_diff = x.read_data(memory), y.read_diff(memory), x.write_diff(memory)
        if isinstance(memory, ChannelsLast):
            self._run_kernel("lrn_backward", x_data, y_diff, x_diff)
            return
        values, y_data = self.tensor(memory), self.engine.xp.empty_like(x_data)
        self._normalise(x_data, y_data)
        self.binding.run(
            "LRNCrossChannelBackward",
            *(self._what, dnn.ACROSS_CHANNELS, ONE, values, address(y_data), values, address(y_diff)),
            *(values, address(x_data), ZERO, values, address(x_diff)),
        )

    def _normalise(self, x_data: Any, y_data: Any) -> None:
        values = self.tensor(self.memories.plain)
        self.binding.run(
            "LRNCrossChannelForward",
            *(self._what, dnn.ACROSS_CHANNELS, ONE, values, address(x_data), ZERO, values, address(y_data)),
        )

    def _run_kernel(self, name: str, *arrays: Any) -> None:
        spec, num_channels = self.spec, self.shape[1]
        pack = 1 if num_channels % _PACK else _PACK
        types = {
            "VALUE": C_TYPES[arrays[0].dtype.name],
            "PACK": str(pack),
            "REACH": str(spec.local_size // 2),
        }
        count = math.prod(self.shape) // pack
        numbers = spec.alpha / spec.local_size, spec.beta, spec.k
        sizes = np.int32(count), np.int32(num_channels)
        kernel = self.engine.kernel(name, "lrn", **types)
        kernel.run(count, *arrays, *sizes, *map(np.float32, numbers))
