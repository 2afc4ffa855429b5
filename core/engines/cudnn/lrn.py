"""cuDNN's local response normalisation across channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, Descriptor, address
from dtrain.core.engines.cudnn.by_memory import SMALL, Unary
from dtrain.core.engines.cudnn.memory import ChannelsLast
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import LRNSpec

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

# As cudnn_ops.h has them: how many neighbours, and the least k and beta.
MOST_NEIGHBOURS, LEAST_K, LEAST_BETA = 16, 1e-5, 0.01


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
        self._normalise(memory, x.read_data(memory), y.write_data(memory))

    def run_backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff."""
        memory = self.for_data(x)
        values, x_data = self.tensor(memory), x.read_data(memory)
        y_data = self.engine.xp.empty_like(x_data)
        self._normalise(memory, x_data, y_data)
        y_diff, x_diff = address(y.read_diff(memory)), address(x.write_diff(memory))
        self.binding.run(
            "LRNCrossChannelBackward",
            *(self._what, dnn.ACROSS_CHANNELS, ONE, values, address(y_data), values, y_diff),
            *(values, address(x_data), ZERO, values, x_diff),
        )

    @classmethod
    def try_out(cls, engine: CudnnEngine, x: Blob, y: Blob) -> None:
        """Run forward and backward."""
        operation = cls(LRNSpec(SMALL, 5, 1.0, 0.75, 1.0, False), engine)
        operation.run_forward(x, y)
        operation.run_backward(x, y)

    def _normalise(self, memory: DeviceMemory | ChannelsLast, x_data: Any, y_data: Any) -> None:
        values = self.tensor(memory)
        self.binding.run(
            "LRNCrossChannelForward",
            *(self._what, dnn.ACROSS_CHANNELS, ONE, values, address(x_data), ZERO, values, address(y_data)),
        )
