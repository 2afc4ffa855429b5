"""cuDNN's activations: relu, sigmoid and tanh."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.binding import ONE, ZERO, Descriptor, address
from dtrain.core.engines.cudnn.by_memory import SMALL, Unary
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ActivationSpec, Shape

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine


class Activation(Unary):
    """Carry out an ActivationSpec. In place, x is y and holds y's values when backward comes; relu shows NaN."""

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

    @classmethod
    def try_out(cls, engine: CudnnEngine, x: Blob, y: Blob) -> None:
        """Run forward and backward."""
        for function in dnn.ACTIVATIONS:
            operation = cls(ActivationSpec(SMALL, function), engine)
            operation.run_forward(x, y)
            operation.run_backward(x, y)


def _with_channels(shape: Shape) -> Shape:
    """Return a shape that cuDNN takes, for a function to which axes mean nothing."""
    if 2 <= len(shape) <= len(SMALL) + 1:
        return shape
    count = 1
    for length in shape:
        count *= length
    return (1, count)
