"""oneDNN's activations: relu, sigmoid and tanh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.operations import ActivationSpec
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_ABS = 0x24
_FORWARD = {"relu": dnn.RELU, "sigmoid": 0x29, "tanh": 0x21}
_BACKWARD = {"relu": dnn.RELU, "sigmoid": 0x104, "tanh": 0x101}  # relu from x, the others from y
_MAX = 0x1FFF2


class Activation(ByLayout["_Primitives"]):
    """Carry out an ActivationSpec. In place, x is y and holds y's values when backward comes."""

    def __init__(self, spec: ActivationSpec, engine: OneDnnEngine) -> None:
        super().__init__(engine, spec.x_shape)
        self.spec = spec
        self.made_for(HOST)

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        made = self.for_data(x)
        made.forward(x.read_data(made.memory), y.write_data(made.memory))

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff = y.diff · f′, f′ from x for relu and from y for the others."""
        seen = x if self.spec.function == "relu" else y
        made = self.for_data(seen)
        y_diff = y.read_diff(made.memory)
        made.backward.run(seen.read_data(made.memory), y_diff, x.write_diff(made.memory))

    def make(self, memory: Memory) -> _Primitives:
        """Return the function and its gradient for one layout."""
        return _Primitives(self, memory)


class _Primitives:
    def __init__(self, owner: Activation, memory: Memory) -> None:
        self.memory = memory
        spec, binding = owner.spec, owner.binding
        keeps_zeros = spec.function != "sigmoid" or memory is HOST
        describe = owner.layouts.flat if keeps_zeros else owner.layouts.descriptor
        values = describe(memory, spec.x_shape)
        slope = float(spec.negative_slope)
        algorithm = _FORWARD[spec.function]
        what = binding.describe("eltwise_forward", dnn.FORWARD, algorithm, values, values, slope, 0.0)
        gradient = binding.describe(
            "eltwise_backward", _BACKWARD[spec.function], values, values, values, slope, 0.0, what
        )
        data = dnn.SRC if spec.function == "relu" else dnn.DST
        operands = {data: values, dnn.DIFF_DST: values, dnn.DIFF_SRC: values}
        self.backward = dnn.Primitive(binding, gradient, operands)
        self._operands = 1
        if spec.function == "relu" and slope == 0:
            self._make_visible_relu(binding, values)
        else:
            self._primitive = dnn.Primitive(binding, what, {dnn.SRC: values, dnn.DST: values})

    def _make_visible_relu(self, binding: dnn.Binding, values: dnn.Descriptor) -> None:
        """Make max(x, 0) as (|max(x, x)| + x) / 2, which is exact: oneDNN's own turns NaN into 0, and a net that has
        diverged would then go on as if nothing were wrong.
        """
        post_ops = [
            ("eltwise", _ABS, 0.0, 0.0),
            ("binary", dnn.ADD, values),
            ("eltwise", dnn.LINEAR, 0.5, 0.0),
        ]
        what = binding.describe("binary", _MAX, values, values, values, post_ops=post_ops)
        operands = dict.fromkeys((dnn.SRC, dnn.SRC_1, dnn.POST_OP_1_SRC_1, dnn.DST), values)
        self._primitive = dnn.Primitive(binding, what, operands)
        self._operands = 3

    def forward(self, x: Any, y: Any) -> None:
        self._primitive.run(*[x] * self._operands, y)
