"""cuDNN's activations: relu, sigmoid and tanh."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, CudnnError, Descriptor, address
from dtrain.core.engines.cudnn.by_memory import Unary
from dtrain.core.engines.cudnn.memory import ChannelsLast, bits
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ActivationSpec, Shape

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


_SMALL = (2, 8, 4, 4)
_MOST_AXES = 5


class Activation(Unary):
    """Carry out an ActivationSpec. In place, x is y and holds y's values when backward comes; relu shows NaN.

    cuDNN's documents don't say for which 16-bit types it has the functions, so that a few values are tried once.
    """

    def __init__(self, spec: ActivationSpec, engine: CudnnEngine) -> None:
        if spec.negative_slope:
            raise NotOffered("with a negative slope")
        super().__init__(engine, spec, _with_channels(spec.x_shape))
        arguments = dnn.ACTIVATIONS[spec.function], dnn.SHOW_NAN, 0.0
        self._what = Descriptor(self.binding, "Activation", "SetActivationDescriptor", *arguments)

    def run_forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        memory = self.for_data(x)
        values = self.tensor(memory)
        x_data, y_data = x.read_data(memory), y.write_data(memory)
        self.binding.run(
            "ActivationForward", self._what, ONE, values, address(x_data), ZERO, values, address(y_data)
        )

    def run_backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff = y.diff · f′, f′ from x for relu, which has y's signs, and from y for the others."""
        seen = x if self.spec.function == "relu" else y
        memory = self.for_data(seen)
        values, data = self.tensor(memory), address(seen.read_data(memory))
        y_diff, x_diff = address(y.read_diff(memory)), address(x.write_diff(memory))
        self.binding.run(
            "ActivationBackward",
            *(self._what, ONE, values, data, values, y_diff, values, data, ZERO, values, x_diff),
        )

    def for_data(self, x: Blob) -> DeviceMemory | ChannelsLast:
        """Return where to work on the data of x: where they lie if that can be."""
        memory, plain = super().for_data(x), self.memories.plain
        if memory is plain:
            return plain
        if self.engine.has_half_activations is None:
            self.engine.has_half_activations = True
            self._try_out()
        return memory if self.engine.has_half_activations else plain

    def _try_out(self) -> None:
        """Run all of them forward and backward on a few values of 16 bits."""
        memory = self.memories.best(_SMALL)
        x, y = Blob(_SMALL), Blob(_SMALL)
        for write in (x.write_data, y.write_diff):
            bits(write(memory))[...] = 0
        try:
            for function in dnn.ACTIVATIONS:
                operation = Activation(ActivationSpec(_SMALL, function), self.engine)
                operation.run_forward(x, y)
                operation.run_backward(x, y)
        except (NotOffered, CudnnError):
            self.engine.has_half_activations = False
            self.engine.tell_of_float32("Activation")


def _with_channels(shape: Shape) -> Shape:
    """Return a shape that cuDNN takes, for a function to which axes mean nothing."""
    if 2 <= len(shape) <= _MOST_AXES:
        return shape
    return (1, math.prod(shape))
