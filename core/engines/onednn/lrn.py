"""oneDNN's local response normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.operations import LRNSpec
from dtrain.core.tensor import Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

# With 1 oneDNN 3.2 crashes while it makes the gradient; from 7 on it gets it wrong for 17 channels, 20 and others.
_RIGHT_SIZES = (3, 5)
_BF16_BLOCK = 16  # in bf16 it is wrong with channels last and a rest of a block
_ACROSS_CHANNELS, _WITHIN_CHANNEL = 0xAFF, 0xBFF


class LRN(ByLayout["_Primitives"]):
    """Carry out an LRNSpec in the layout of x if there is fast code for it, with channels last otherwise."""

    def __init__(self, spec: LRNSpec, engine: OneDnnEngine) -> None:
        last = engine.layouts.channels_last(spec.x_shape)
        super().__init__(engine, spec.x_shape, engine.layouts.memory(last, spec.x_shape))
        self.spec = spec
        limits = f"over {spec.local_size} neighbours {'within' if spec.within_channel else 'across'} channels"
        if spec.local_size not in _RIGHT_SIZES:
            raise NotOffered(limits)
        try:
            self._last = self.made_for(self.otherwise)
        except NotOffered:
            raise NotOffered(limits) from None

    def forward(self, x: Blob, y: Blob) -> None:
        """Compute y.data."""
        self._last = made = self.for_data(x)
        made.forward.run(x.read_data(made.memory), y.write_data(made.memory), *made.workspace)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff."""
        made = self._last
        y_diff, x_data = y.read_diff(made.memory), x.read_data(made.memory)
        made.backward.run(x_data, y_diff, x.write_diff(made.memory), *made.workspace)

    def make(self, memory: Memory) -> _Primitives:
        """Return forward and backward for one layout."""
        return _Primitives(self, memory)


class _Primitives:
    def __init__(self, owner: LRN, memory: Memory) -> None:
        spec, binding = owner.spec, owner.binding
        self.memory = memory
        values = owner.layouts.descriptor(memory, spec.x_shape)
        if values.type == dnn.BF16 and spec.x_shape[1] % _BF16_BLOCK:
            raise NotOffered
        algorithm = _WITHIN_CHANNEL if spec.within_channel else _ACROSS_CHANNELS
        k = 1.0 if spec.within_channel else float(spec.k)
        numbers = (dnn.Int64(spec.local_size), float(spec.alpha), float(spec.beta), k)
        what = binding.describe("lrn_forward", dnn.FORWARD, algorithm, values, values, *numbers)
        gradient = binding.describe("lrn_backward", algorithm, values, values, values, *numbers, what)
        workspace = what.layout(dnn.WORKSPACE)
        kept = {dnn.WORKSPACE: workspace} if workspace.num_bytes else {}
        self.workspace = [dnn.make_array(descriptor.num_bytes) for descriptor in kept.values()]
        self.forward = dnn.Primitive(binding, what, {dnn.SRC: values, dnn.DST: values, **kept})
        operands = {dnn.SRC: values, dnn.DIFF_DST: values, dnn.DIFF_SRC: values, **kept}
        self.backward = dnn.Primitive(binding, gradient, operands)
