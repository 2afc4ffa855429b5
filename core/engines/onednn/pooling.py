"""oneDNN's pooling, with Caffe's rule for windows that reach beyond the input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.by_layout import ByLayout
from dtrain.core.engines.operations import PoolingOperation, PoolingSpec
from dtrain.core.tensor import HOST, Memory

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_MAX, _AVERAGE_OF_WINDOW, _AVERAGE_OF_INPUTS = 0x1FF, 0x2FF, 0x3FF
_MULTIPLY = 0x1FFF1
_LOWEST_BF16, _NAN_BF16 = 0xFF80, 0x7FC0  # the lowest float32 as bf16 is −∞


class Pooling(ByLayout["_Primitives"]):
    """Carry out a PoolingSpec. MAX passes over a NaN beside a number, as Caffe does; a window of NaN alone gives NaN.

    oneDNN averages over a window's inputs or over all of it; Caffe over what lies before the far end of the padding.
    Without padding that is the inputs; with it, windows that are clipped there are put right by a factor.
    """

    def __init__(self, spec: PoolingSpec, engine: OneDnnEngine) -> None:
        super().__init__(engine, spec.x_shape)
        self.spec = spec
        spans = [_Span(spec, axis) for axis in range(2)]
        if not all(span.sees_inputs for span in spans):
            raise NotOffered("with windows that see no input")
        self.far_pads = tuple(span.far_pad for span in spans)
        is_clipped = any(span.is_clipped for span in spans)
        self.algorithm = _AVERAGE_OF_WINDOW if any(spec.pad) else _AVERAGE_OF_INPUTS
        if spec.method == "MAX":
            self.algorithm = _MAX
        self.factors: Any = None
        if self.algorithm == _AVERAGE_OF_WINDOW and is_clipped:
            sizes = np.outer(spans[0].lengths, spans[1].lengths)
            self.factors = (math.prod(spec.kernel) / sizes).astype(np.float32)
        self._masked: PoolingOperation | None = None  # the reference's, where places of winners are asked for
        self._last: _Primitives | None = self.made_for(HOST)

    def forward(self, x: Blob, y: Blob, mask: Blob | None) -> None:
        """Compute y.data, and mask.data if given: by the reference engine then."""
        if mask is not None:
            self._masked = self._masked or self.engine.fallback.create(self.spec)
            self._masked.forward(x, y, mask)
            self._last = None
            return
        self._last = made = self.for_data(x)
        y_data = y.write_data(made.y_memory)
        made.forward.run(x.read_data(made.x_memory), y_data, *made.workspace)
        if self.algorithm == _MAX:
            _show_nan(y_data, made.type)
        if made.scale is not None:
            made.scale.run(y_data, self.factors, y_data)

    def backward(self, x: Blob, y: Blob) -> None:
        """Compute x.diff; for MAX through the winners of the last forward."""
        made = self._last
        if made is None:
            assert self._masked is not None
            self._masked.backward(x, y)
            return
        y_diff = y.read_diff(made.y_memory)
        if made.scale is not None:
            scaled = self.engine.lend("pooling", y_diff.nbytes)
            made.scale.run(y_diff, self.factors, scaled)
            y_diff = scaled
        made.backward.run(y_diff, x.write_diff(made.x_memory), *made.workspace)

    def make(self, memory: Memory) -> _Primitives:
        """Return forward and backward for one layout."""
        return _Primitives(self, memory)


class _Primitives:
    def __init__(self, owner: Pooling, memory: Memory) -> None:
        spec, binding, layouts = owner.spec, owner.binding, owner.layouts
        x = layouts.descriptor(memory, spec.x_shape)
        self.type = x.type
        any_y = binding.any_layout(spec.y_shape, x.type)
        window = (spec.stride, spec.kernel, (0, 0), spec.pad, owner.far_pads)
        what = binding.describe("pooling_forward", dnn.FORWARD, owner.algorithm, x, any_y, *window)
        y = what.layout(dnn.DST)
        gradient = binding.describe("pooling_backward", owner.algorithm, x, y, *window, what)
        workspace = what.layout(dnn.WORKSPACE)
        kept = {dnn.WORKSPACE: workspace} if workspace.num_bytes else {}
        self.workspace = [dnn.make_array(descriptor.num_bytes) for descriptor in kept.values()]
        self.x_memory, self.y_memory = memory, layouts.memory(y, spec.y_shape)
        self.forward = dnn.Primitive(binding, what, {dnn.SRC: x, dnn.DST: y, **kept})
        self.backward = dnn.Primitive(binding, gradient, {dnn.DIFF_DST: y, dnn.DIFF_SRC: x, **kept})
        self.scale: dnn.Primitive | None = None
        if owner.factors is not None:
            factors = layouts.plain((1, 1, *spec.y_shape[2:]))
            what = binding.describe("binary", _MULTIPLY, y, factors, y)
            operands = {dnn.SRC: y, dnn.SRC_1: factors, dnn.DST: y}
            self.scale = dnn.Primitive(binding, what, operands)


def _show_nan(y: NDArray[Any], type_of_values: int) -> None:
    """Let windows of NaN alone give NaN, not the lowest number, which a ReLU behind would turn into a harmless 0."""
    if type_of_values == dnn.BF16:
        bits = y.view(np.uint16)  # of negative values these are the greater the lower the value
        if bits.max() >= _LOWEST_BF16:
            bits[bits == _LOWEST_BF16] = _NAN_BF16
        return
    lowest = np.finfo(np.float32).min
    if y.min() == lowest:
        y[y == lowest] = np.nan


class _Span:
    """The windows along one spatial axis."""

    def __init__(self, spec: PoolingSpec, axis: int) -> None:
        size, kernel, pad = spec.x_shape[2 + axis], spec.kernel[axis], spec.pad[axis]
        starts = np.arange(spec.y_shape[2 + axis]) * spec.stride[axis] - pad
        ends = starts + kernel
        self.far_pad = int(ends[-1]) - size
        self.is_clipped = bool(ends[-1] > size + pad)
        self.lengths = np.minimum(ends, size + pad) - starts
        self.sees_inputs = bool(np.all((starts < size) & (ends > 0)))
