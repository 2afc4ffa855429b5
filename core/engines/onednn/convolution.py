"""oneDNN's convolution and deconvolution, each operand in the layout that oneDNN likes best for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.layouts import make_reorder
from dtrain.core.engines.operations import ConvolutionSpec, Shape, Wanted, WeightedOperation

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_DIRECT = {False: 0x1, True: 0xA}  # the algorithm, by transposed
_MAX_SPATIAL_AXES = 3
_MAX_PAD_OF_STRIDED_DEPTH = 2  # beyond it oneDNN 3.2 leaves parts of the weight's gradient undefined
_BLOCK = 16  # oneDNN's blocked layouts fill up the channels to a multiple of this …
_FEW = 3  # … but for the few of an image


def create_convolution(spec: ConvolutionSpec, engine: OneDnnEngine) -> Convolution:
    """Return what carries out `spec` in the values that the engine computes in."""
    kind = "Deconvolution" if spec.transposed else "Convolution"
    return engine.create_in_its_values(kind, lambda values: Convolution(spec, engine, values))


class Convolution:
    """Carry out a ConvolutionSpec, transposed or not, in values of type FLOAT32 or BF16; sums are float32.

    The weight is kept plain, where the update rules work, and reordered once per change; its gradient is computed in
    a layout of oneDNN's, in float32, and added to the plain one. What backward needs is made when it first runs.
    """

    def __init__(self, spec: ConvolutionSpec, engine: OneDnnEngine, values: int = dnn.FLOAT32) -> None:
        self.spec = spec
        self.engine = engine
        self.values = values
        self.layouts = engine.layouts
        self.binding = engine.binding
        if not 1 <= len(spec.stride) <= _MAX_SPATIAL_AXES:
            raise NotOffered(f"over {len(spec.stride)} spatial axes")
        if (
            len(spec.stride) == _MAX_SPATIAL_AXES
            and spec.stride[0] > 1
            and spec.pad[0] > _MAX_PAD_OF_STRIDED_DEPTH
        ):
            raise NotOffered(f"with a stride of {spec.stride[0]} and a pad of {spec.pad[0]} in depth")
        if values == dnn.BF16 and _has_wrong_gradient_in_bf16(spec):
            raise NotOffered("of windows that see little but padding")
        self.kind = "deconvolution" if spec.transposed else "convolution"
        self.algorithm = _DIRECT[spec.transposed]
        self.x_shape = _one_batch_axis(spec.x_shape, spec.axis)
        self.y_shape = _one_batch_axis(spec.y_shape, spec.axis)
        self.weight_shape, self.weight_strides = _weight_of_groups(spec)
        self.bias = self.layouts.plain((self.y_shape[1],)) if spec.bias else None
        dilation = tuple(step - 1 for step in spec.dilation)  # oneDNN counts what is left out
        self.window = (spec.stride, dilation, spec.pad, _far_pads(spec))
        self.what = self._describe_forward()
        self._make_forward()
        self._gradients: _Gradients | Convolution | WeightedOperation | None = None

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y.data."""
        biases = [] if bias is None else [bias.read_data()]
        x_data, weight_data = x.read_data(self.x_memory), weight.read_data(self.weight_memory)
        self.primitive.run(x_data, weight_data, *biases, y.write_data(self.y_memory))

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute the wanted ones of x.diff, weight.diff (accumulated) and bias.diff (accumulated)."""
        if self._gradients is None:
            self._gradients = self._make_gradients()
        self._gradients.backward(x, weight, bias, y, wanted)

    def _make_gradients(self) -> _Gradients | Convolution | WeightedOperation:
        try:
            return _Gradients(self)
        except NotOffered:
            what = "gradient of this Convolution"
            if self.values == dnn.BF16:
                self.engine.tell_of_float32(what)
                return Convolution(self.spec, self.engine, dnn.FLOAT32)
            operation: WeightedOperation = self.engine.ask_fallback(self.spec, what)
            return operation

    def _describe_forward(self) -> dnn.PrimitiveDescriptor:
        x, weight, y = self.wishes(self.values)
        arguments = (dnn.FORWARD, self.algorithm, x, weight, self.bias, y, *self.window)
        return self.binding.describe(f"{self.kind}_forward", *arguments)

    def wishes(self, of_weight: int) -> tuple[dnn.Descriptor, ...]:
        """Return the layouts to ask oneDNN for, of x, weight (or its gradient; values of type `of_weight`) and y:
        what it likes best, in most cases.

        Where blocks would be filled up with zeros it is slower than with channels last (LeNet's second convolution:
        11.9 against 8.8 ms for all three directions), but does not say so.
        """
        wish = self.binding.any_layout
        x, y = (wish(shape, self.values) for shape in (self.x_shape, self.y_shape))
        weight = wish(self.weight_shape, of_weight)
        if self.spec.group in (1, self.y_shape[1]):
            x, y = (
                self.layouts.channels_last(shape, self.values)
                if shape[1] > _FEW and shape[1] % _BLOCK
                else any_
                for shape, any_ in ((self.x_shape, x), (self.y_shape, y))
            )
        return x, weight, y

    def _make_forward(self) -> None:
        x, weight, y = (self.what.layout(argument) for argument in (dnn.SRC, dnn.WEIGHTS, dnn.DST))
        self.x_memory = self.layouts.memory(x, self.x_shape)
        self.weight_memory = self.layouts.memory(weight, self.weight_shape, self.weight_strides)
        self.y_memory = self.layouts.memory(y, self.y_shape)
        operands = {dnn.SRC: x, dnn.WEIGHTS: weight}
        operands |= {dnn.BIAS: self.bias} if self.bias else {}
        self.primitive = dnn.Primitive(self.binding, self.what, operands | {dnn.DST: y})


class _Gradients:
    """The two gradients of a convolution."""

    def __init__(self, forward: Convolution) -> None:
        self.engine = forward.engine
        self.layouts = forward.layouts
        self.binding = forward.binding
        self._make_params(forward)
        self._make_x(forward)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute what is wanted."""
        if wanted.weight or wanted.bias:
            self._add_param_gradients(x, weight, bias, y, wanted)
        if wanted.x:
            y_diff, weight_data = y.read_diff(self._y_memory), weight.read_data(self._weight_memory)
            self._for_x.run(weight_data, y_diff, x.write_diff(self._x_diff_memory))

    def _add_param_gradients(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        biases = [] if bias is None else [self._bias_gradient]
        gradient = self.engine.lend("weight gradient", self._num_weight_bytes)
        x_data, y_diff = x.read_data(self._x_memory), y.read_diff(self._y_memory_for_params)
        self._for_params.run(x_data, y_diff, gradient, *biases)
        if wanted.weight:
            self._add_to_plain.run(gradient, weight.update_diff())
        if wanted.bias and bias is not None:
            bias_diff = bias.update_diff()
            bias_diff += self._bias_gradient

    def _make_params(self, forward: Convolution) -> None:
        x, weight, y = forward.wishes(dnn.FLOAT32)
        what = self.binding.describe(
            f"{forward.kind}_backward_weights",
            *(forward.algorithm, x, weight, forward.bias, y, *forward.window, forward.what),
        )
        x, weight, y = (what.layout(argument) for argument in (dnn.SRC, dnn.DIFF_WEIGHTS, dnn.DIFF_DST))
        self._x_memory = self.layouts.memory(x, forward.x_shape)
        self._y_memory_for_params = self.layouts.memory(y, forward.y_shape)
        operands = {dnn.SRC: x, dnn.DIFF_DST: y, dnn.DIFF_WEIGHTS: weight}
        operands |= {dnn.DIFF_BIAS: forward.bias} if forward.bias else {}
        self._for_params = dnn.Primitive(self.binding, what, operands)
        self._num_weight_bytes = weight.num_bytes
        self._bias_gradient: Any = np.zeros(forward.y_shape[1], np.float32)
        plain = self.layouts.plain(forward.weight_shape, forward.weight_strides)
        self._add_to_plain = make_reorder(self.binding, weight, plain, accumulates=True)

    def _make_x(self, forward: Convolution) -> None:
        x, weight, y = forward.wishes(forward.values)
        what = self.binding.describe(
            f"{forward.kind}_backward_data",
            *(forward.algorithm, x, weight, y, *forward.window, forward.what),
        )
        x, weight, y = (what.layout(argument) for argument in (dnn.DIFF_SRC, dnn.WEIGHTS, dnn.DIFF_DST))
        self._x_diff_memory = self.layouts.memory(x, forward.x_shape)
        self._weight_memory = self.layouts.memory(weight, forward.weight_shape, forward.weight_strides)
        self._y_memory = self.layouts.memory(y, forward.y_shape)
        operands = {dnn.WEIGHTS: weight, dnn.DIFF_DST: y, dnn.DIFF_SRC: x}
        self._for_x = dnn.Primitive(self.binding, what, operands)


def _one_batch_axis(shape: Shape, axis: int) -> Shape:
    return (math.prod(shape[:axis]), *shape[axis:])


def _weight_of_groups(spec: ConvolutionSpec) -> tuple[Shape, Shape]:
    """Return the weight's shape as oneDNN sees it, (groups…, outputs, inputs, kernel…), and its strides on the host.

    A transposed one lies on the host with its inputs before its outputs.
    """
    first, second, *kernel = spec.weight_shape
    shape = (spec.group, first // spec.group, second, *kernel)
    strides = dnn.row_major(shape)
    if spec.transposed:
        shape = (shape[0], shape[2], shape[1], *kernel)
        strides = (strides[0], strides[2], strides[1], *strides[3:])
    if spec.group == 1:
        shape, strides = shape[1:], strides[1:]
    return shape, strides if spec.transposed else ()


def _axes(spec: ConvolutionSpec) -> list[tuple[int, ...]]:
    """Return for each spatial axis: input's length, number of windows, the kernel's size, stride, dilation, pad."""
    fine, coarse = (spec.y_shape, spec.x_shape) if spec.transposed else (spec.x_shape, spec.y_shape)
    kernel = spec.weight_shape[2:]
    first = spec.axis + 1
    return list(zip(fine[first:], coarse[first:], kernel, spec.stride, spec.dilation, spec.pad, strict=True))


def _far_pads(spec: ConvolutionSpec) -> Shape:
    """Return the padding at the far ends: less than `pad` (or below 0) where windows leave a rest out."""
    return tuple(
        (output - 1) * stride + dilation * (size - 1) + 1 - length - pad
        for length, output, size, stride, dilation, pad in _axes(spec)
    )


def _has_wrong_gradient_in_bf16(spec: ConvolutionSpec) -> bool:
    """Return whether oneDNN 3.2 leaves parts of the weight's gradient undefined, which it computes in float32."""
    axes = _axes(spec)
    length, _, size, _, dilation, _ = axes[0]
    is_shallow = len(axes) == _MAX_SPATIAL_AXES and length < dilation * (size - 1) + 1
    return is_shallow or not all(_taps_see_something(*axis) for axis in axes)


def _taps_see_something(
    length: int, num_windows: int, size: int, stride: int, dilation: int, pad: int
) -> bool:
    """Return whether each place of the kernel lies on an input, not on padding, in one window at least."""
    starts = range(-pad, num_windows * stride - pad, stride)
    return all(any(0 <= start + tap * dilation < length for start in starts) for tap in range(size))
