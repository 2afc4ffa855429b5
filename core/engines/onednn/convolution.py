"""oneDNN's convolution and deconvolution, each operand in the layout that oneDNN likes best for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.onednn import binding as dnn
from dtrain.core.engines.onednn.layout_costs import BLOCK, BLOCKED, FEW, LAST, convolution_costs
from dtrain.core.engines.onednn.layouts import make_reorder
from dtrain.core.engines.operations import ConvolutionSpec, Shape, Wanted, WeightedOperation, one_batch_axis

if TYPE_CHECKING:
    from dtrain.core.engines.onednn.engine import OneDnnEngine

_DIRECT = {False: 0x1, True: 0xA}  # the algorithm, by transposed
_PRODUCTS = "brgconv:avx512_core", "brgconv:avx512_core_bf16"  # names of oneDNN's code, without those for AMX
_DIRECT_CODE = "jit:avx512_core", "jit_bf16:avx512_core_bf16"
_FEWEST_FOR_PRODUCTS = 80  # channels; as measured for 6 to 200
_VALUES_OF_LINE, _VALUES_OF_PAGE = 16, 1024  # float32
_MAX_SPATIAL_AXES = 3
_MAX_PAD_OF_STRIDED_DEPTH = 2  # beyond it oneDNN 3.2 leaves parts of the weight's gradient undefined

_Operands = Callable[[dnn.Descriptor, dnn.Descriptor, dnn.Descriptor], tuple[dnn.Descriptor | None, ...]]


def create_convolution(
    spec: ConvolutionSpec, engine: OneDnnEngine, post_ops: dnn.PostOps = (), adds: bool = False
) -> Convolution:
    """Return what carries out `spec` in the values that the engine computes in."""
    kind = "Deconvolution" if spec.transposed else "Convolution"
    return engine.create_in_its_values(kind, lambda values: Convolution(spec, engine, values, post_ops, adds))


class Convolution:
    """Carry out a ConvolutionSpec, transposed or not, in values of type FLOAT32 or BF16; sums are float32.

    The weight is kept plain, where the update rules work, and reordered once per change; its gradient is computed in
    a layout of oneDNN's, in float32, and added to the plain one. What a pass needs is made when it first runs.

    layout: the one of layout_costs.py in which it works, if it can; at first what is best for it alone. costs: its
    seconds in those among which it can choose.
    adds: another blob is added to what is computed. post_ops: what is done then; backward knows of neither.
    """

    def __init__(
        self,
        spec: ConvolutionSpec,
        engine: OneDnnEngine,
        values: int = dnn.FLOAT32,
        post_ops: dnn.PostOps = (),
        adds: bool = False,
    ) -> None:
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
        self.x_shape = one_batch_axis(spec.x_shape, spec.axis)
        self.y_shape = one_batch_axis(spec.y_shape, spec.axis)
        self.weight_shape, self.weight_strides = _weight_of_groups(spec)
        self.bias = self.layouts.plain((self.y_shape[1],)) if spec.bias else None
        dilation = tuple(step - 1 for step in spec.dilation)  # oneDNN counts what is left out
        self.window = (spec.stride, dilation, spec.pad, _far_pads(spec))
        self._adds = adds
        self._post_ops = post_ops
        self.costs = convolution_costs(spec)
        self._gradients: _Gradients | Convolution | WeightedOperation | None = None
        self._work_in(min(self.costs, key=lambda layout: self.costs[layout]))

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, added: Blob | None = None) -> None:
        """Compute y.data."""
        others = [] if bias is None else [bias.read_data()]
        if added is not None:
            others.append(added.read_data(self.y_memory))
        x_data, weight_data = x.read_data(self.x_memory), weight.read_data(self.weight_memory)
        self.primitive.run(x_data, weight_data, *others, y.write_data(self.y_memory))

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

    def work_in(self, layout: str) -> None:
        """Work in this layout of layout_costs.py from now on, as the net's plan says, if oneDNN has fast code for it.

        Nothing may be under way: backward belongs to the forward before.
        """
        if layout != self.layout:
            self._work_in(layout)

    def _work_in(self, layout: str) -> None:
        self.layout = layout
        try:
            self._find_memories(self._describe_forward(layout))
        except NotOffered:
            if layout == BLOCKED and LAST not in self.costs:
                raise
            self._find_memories(self._describe_forward(LAST if layout == BLOCKED else BLOCKED))
        self.__dict__.pop("primitive", None)
        self._gradients = None

    def _describe_forward(self, layout: str) -> dnn.PrimitiveDescriptor:
        x, weight, y = self._wishes(layout)
        arguments = (dnn.FORWARD, self.algorithm, x, weight, self.bias, y, *self.window)
        post_ops = self._post_ops
        if self._adds:  # in the layout of y, which is not known yet
            post_ops = (("binary", dnn.ADD, self.binding.any_layout(self.y_shape, self.values)), *post_ops)
        what = self._describe("forward", self.y_shape[1], *arguments, post_ops=post_ops)
        if post_ops and "gemm" in what.implementation():  # which does post-operations in a plain loop
            raise NotOffered
        return what

    def _wishes(self, layout: str) -> tuple[dnn.Descriptor, ...]:
        """Return the layouts to ask oneDNN for, of x, weight and y: with channels last, or what it likes best.

        It likes blocks, even where they are filled up with zeros, and does not say that it is slower then.
        """
        wish = self.binding.any_layout
        x, y = (
            self.layouts.channels_last(shape, self.values)
            if layout == LAST and shape[1] > FEW
            else wish(shape, self.values)
            for shape in (self.x_shape, self.y_shape)
        )
        return x, wish(self.weight_shape, self.values), y

    def describe_gradient(self, name: str, of_weight: int, operands: _Operands) -> dnn.PrimitiveDescriptor:
        """Return the descriptor of a backward pass on x, weight (values of type `of_weight`) and y, which `operands`
        puts in order: in the layouts of forward, if it can be, whatever oneDNN likes best. For the gradient of x with
        strides it likes channels last, which is no faster, and for depthwise ones in bf16 fifty times slower.
        """
        wish = self.binding.any_layout
        weight = wish(self.weight_shape, of_weight)
        as_forward = tuple(self.what.layout(argument) for argument in (dnn.SRC, dnn.DST))
        for x, y in (as_forward, tuple(wish(shape, self.values) for shape in (self.x_shape, self.y_shape))):
            arguments = (self.algorithm, *operands(x, weight, y), *self.window, self.what)
            try:
                return self._describe(name, self.x_shape[1], *arguments)
            except NotOffered:
                continue
        raise NotOffered

    def _describe(
        self, name: str, num_written: int, *arguments: Any, post_ops: dnn.PostOps = ()
    ) -> dnn.PrimitiveDescriptor:
        """Return the descriptor of a pass that writes so many channels: in the code that oneDNN thinks best, or is.

        With channels last it thinks that of small products of matrices. Where few channels are written, the last
        of which fill no vector, its direct code is faster: by a tenth for LeNet's second, from 20 channels to 50.
        """
        kind = f"{self.kind}_{name}"
        what = self.binding.describe(kind, *arguments, post_ops=post_ops)
        has_window = math.prod(self.spec.weight_shape[2:]) > 1
        leaves_rest = num_written < _FEWEST_FOR_PRODUCTS and num_written % BLOCK
        if not (has_window and leaves_rest and what.implementation().endswith(_PRODUCTS)):
            return what
        while what.go_on():
            if what.implementation().startswith(_DIRECT_CODE):
                return what
        return self.binding.describe(kind, *arguments, post_ops=post_ops)

    def _find_memories(self, what: dnn.PrimitiveDescriptor) -> None:
        x, weight, y = (what.layout(argument) for argument in (dnn.SRC, dnn.WEIGHTS, dnn.DST))
        if self._adds and not what.layout(dnn.POST_OP_0_SRC_1).equals(y):
            raise NotOffered("with a blob added")
        self.what = what
        self.x_memory = self.layouts.memory(x, self.x_shape)
        self.weight_memory = self.layouts.memory(weight, self.weight_shape, self.weight_strides)
        self.y_memory = self.layouts.memory(y, self.y_shape)

    @cached_property
    def primitive(self) -> dnn.Primitive:
        """The forward pass, compiled when it is first run: it may be another operation that does its work."""
        x, weight, y = (self.what.layout(argument) for argument in (dnn.SRC, dnn.WEIGHTS, dnn.DST))
        operands = {dnn.SRC: x, dnn.WEIGHTS: weight}
        operands |= {dnn.BIAS: self.bias} if self.bias else {}
        operands |= {dnn.POST_OP_0_SRC_1: y} if self._adds else {}
        return dnn.Primitive(self.binding, self.what, operands | {dnn.DST: y})


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
        if wanted.weight and self._rows is not None:
            weight.add_to_diff(self._rows.spread(gradient))
        elif wanted.weight:
            weight_diff, is_sum = weight.join_diff()
            self._to_plain[is_sum].run(gradient, weight_diff)
        if wanted.bias and bias is not None:
            bias.add_to_diff(self._bias_gradient)

    def _make_params(self, forward: Convolution) -> None:
        what = forward.describe_gradient(
            "backward_weights", dnn.FLOAT32, lambda x, weight, y: (x, weight, forward.bias, y)
        )
        x, weight, y = (what.layout(argument) for argument in (dnn.SRC, dnn.DIFF_WEIGHTS, dnn.DIFF_DST))
        self._x_memory = self.layouts.memory(x, forward.x_shape)
        self._y_memory_for_params = self.layouts.memory(y, forward.y_shape)
        operands = {dnn.SRC: x, dnn.DIFF_DST: y, dnn.DIFF_WEIGHTS: weight}
        operands |= {dnn.DIFF_BIAS: forward.bias} if forward.bias else {}
        self._for_params = dnn.Primitive(self.binding, what, operands)
        self._num_weight_bytes = weight.num_bytes
        self._bias_gradient: Any = np.zeros(forward.y_shape[1], np.float32)
        spec = forward.spec
        self._rows = _Rows(self.engine, weight, spec.weight_shape) if _has_rows_of_pages(spec) else None
        plain = self.layouts.plain(forward.weight_shape, forward.weight_strides)
        self._to_plain = {adds: make_reorder(self.binding, weight, plain, adds) for adds in (False, True)}

    def _make_x(self, forward: Convolution) -> None:
        what = forward.describe_gradient("backward_data", forward.values, lambda *operands: operands)
        x, weight, y = (what.layout(argument) for argument in (dnn.DIFF_SRC, dnn.WEIGHTS, dnn.DIFF_DST))
        self._x_diff_memory = self.layouts.memory(x, forward.x_shape)
        self._weight_memory = self.layouts.memory(weight, forward.weight_shape, forward.weight_strides)
        self._y_memory = self.layouts.memory(y, forward.y_shape)
        operands = {dnn.WEIGHTS: weight, dnn.DIFF_DST: y, dnn.DIFF_SRC: x}
        self._for_x = dnn.Primitive(self.binding, what, operands)


class _Rows:
    """Brings the gradient of a 1x1 convolution's weight into row-major order by way of rows that lie further apart.

    Those of a whole number of pages fall on the same lines of the cache, 16 of them at a time, and push each other
    out: reordered straight they take 2 to 3 times as long, where they are added to a sum 4 times.
    """

    def __init__(self, engine: OneDnnEngine, source: dnn.Descriptor, shape: Shape) -> None:
        num_outputs, self._num_inputs, *_ = shape
        self._engine = engine
        self._step = self._num_inputs + _VALUES_OF_LINE
        self._count = num_outputs * self._step
        rows = engine.layouts.plain(shape, (self._step, 1, 1, 1))
        self._reorder = make_reorder(engine.binding, source, rows)

    def spread(self, gradient: Any) -> Any:
        """Return the gradient as an array of the weight's shape, for use at once."""
        lent = self._engine.lend("rows of a gradient", dnn.NUM_BYTES[dnn.FLOAT32] * self._count)
        self._reorder.run(gradient, lent)
        return lent[: self._count].reshape(-1, self._step)[:, : self._num_inputs, None, None]


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


def _has_rows_of_pages(spec: ConvolutionSpec) -> bool:
    """Return whether the weight is one matrix, of rows that take whole pages."""
    num_inputs, *kernel = spec.weight_shape[1:]
    is_matrix = kernel == [1, 1] and spec.group == 1 and not spec.transposed
    return is_matrix and num_inputs % _VALUES_OF_PAGE == 0


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
