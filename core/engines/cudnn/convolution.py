"""cuDNN's convolution and deconvolution: three passes, used in their two directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dtrain.core.blob import Blob
from dtrain.core.engines.cudnn.algorithms import Geometry, Operand, Pass
from dtrain.core.engines.cudnn.binding import ONE, ZERO, Descriptor, address
from dtrain.core.engines.cudnn.channel_sums import ChannelSums
from dtrain.core.engines.cudnn.epilogue import Epilogue
from dtrain.core.engines.cudnn.memory import ChannelsLast, as_images
from dtrain.core.engines.cupy.memory import DeviceMemory
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ConvolutionSpec, Shape, Wanted, WeightedOperation, one_batch_axis

if TYPE_CHECKING:
    from dtrain.core.engines.cudnn.engine import CudnnEngine

_MOST_SPATIAL_AXES = 3


class Convolution:
    """Carry out a ConvolutionSpec, transposed or not: in 16 bits, in float32, or where cuDNN has no code for either,
    which may show when it runs, by the fallback engine.

    adds: another blob is added to what is computed. relu: what comes then; backward knows of neither.
    """

    def __init__(
        self, spec: ConvolutionSpec, engine: CudnnEngine, adds: bool = False, relu: bool = False
    ) -> None:
        self.spec = spec
        self.engine = engine
        self.y_shape = spec.y_shape
        self.does_more = adds or relu
        self._epilogue = Epilogue(engine, one_batch_axis(spec.y_shape, spec.axis), False, adds, relu)
        self._own: Passes | None = Passes(spec, engine, adds, relu)
        self._other: WeightedOperation | None = None

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, added: Blob | None = None) -> None:
        """Compute y.data."""
        while self._own is not None:
            try:
                self._own.forward(x, weight, bias, y, added)
            except NotOffered as limits:
                self._own = self._without(self._own, limits)
            else:
                return
        assert self._other is not None
        self._other.forward(x, weight, bias, y)
        if self.does_more:
            plain = self.engine.memories.plain
            self._epilogue.run(y.update_data(plain), plain, None, added)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute the wanted ones of x.diff, weight.diff (accumulated) and bias.diff (accumulated)."""
        while self._own is not None:
            try:
                self._own.backward(x, weight, bias, y, wanted)
            except NotOffered as limits:
                self._own = self._without(self._own, limits)
            else:
                return
        assert self._other is not None
        self._other.backward(x, weight, bias, y, wanted)

    def _without(self, own: Passes, limits: NotOffered) -> Passes | None:
        """Return the next best of our own, after one that cuDNN has refused; None: another engine's turn has come."""
        kind = " ".join(["Convolution", *map(str, limits.args)])
        if own.is_half:
            self.engine.tell_of_float32(kind)
            return Passes(self.spec, self.engine, own.adds, own.relu, half=False)
        self._other = self.engine.ask_fallback(self.spec, kind)
        return None


class Passes:
    """What a convolution does in one type of values: the three passes and, in one more, what comes behind.

    In 16 bits channels lie last and sums are float32; the weight is a rounded copy of the float32 one, and its
    gradient is rounded before it is added to the float32 one. NotOffered is raised before a param's diff is changed.
    """

    def __init__(
        self,
        spec: ConvolutionSpec,
        engine: CudnnEngine,
        adds: bool = False,
        relu: bool = False,
        half: bool = True,
    ) -> None:
        if not 1 <= len(spec.stride) <= _MOST_SPATIAL_AXES:
            raise NotOffered(f"over {len(spec.stride)} spatial axes")
        self.engine = engine
        self.binding = engine.binding
        self.plain = engine.memories.plain
        self.transposed = spec.transposed
        self.adds, self.relu = adds, relu
        x_shape, y_shape = (one_batch_axis(shape, spec.axis) for shape in (spec.x_shape, spec.y_shape))
        self.x_memory, self.weight_memory, self.y_memory = (
            engine.memories.best(shape, half) for shape in (x_shape, spec.weight_shape, y_shape)
        )
        self.is_half = isinstance(self.y_memory, ChannelsLast)
        self.dtype = engine.memories.dtype(self.y_memory)
        x, weight, y = (as_images(shape) for shape in (x_shape, spec.weight_shape, y_shape))
        self._make_passes(spec, *((y, x) if spec.transposed else (x, y)), weight)
        self._y = self.binding.tensor(y, self.dtype, self.is_half)
        channels = (1, y[1], *[1] * (len(y) - 2))
        self._bias = self.binding.tensor(channels, "float32")
        self._sums = ChannelSums(engine, y)
        self._epilogue = Epilogue(engine, y, spec.bias, adds, relu)

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, added: Blob | None = None) -> None:
        """Compute y.data."""
        x_data, weight_data = x.read_data(self.x_memory), weight.read_data(self.weight_memory)
        y_data = y.write_data(self.y_memory)
        self._apply(x_data, weight_data, y_data)
        self._epilogue.run(y_data, self.y_memory, bias, added)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute the wanted ones of x.diff, weight.diff (accumulated) and bias.diff (accumulated)."""
        y_diff = y.read_diff(self.y_memory)
        x_data = x.read_data(self.x_memory) if wanted.weight else None
        fine, coarse = (y_diff, x_data) if self.transposed else (x_data, y_diff)
        if wanted.weight:
            self._gradient.choose(fine, coarse)
        if wanted.x:
            weight_data, x_diff = weight.read_data(self.weight_memory), x.write_diff(self.x_memory)
            self._apply_adjoint(y_diff, weight_data, x_diff)
        if wanted.bias and bias is not None:
            self._add_bias_gradient(bias, y)
        if wanted.weight:
            memory = self.weight_memory
            self._add_to(weight, memory, lambda diff, adds: self._gradient.run(fine, coarse, diff, adds))

    def _apply(self, x: Any, weight: Any, y: Any) -> None:
        if self.transposed:
            self._spread.run(weight, x, y)
        else:
            self._correlate.run(x, weight, y)

    def _apply_adjoint(self, y_diff: Any, weight: Any, x_diff: Any) -> None:
        if self.transposed:
            self._correlate.run(y_diff, weight, x_diff)
        else:
            self._spread.run(weight, y_diff, x_diff)

    def _add_bias_gradient(self, bias: Blob, y: Blob) -> None:
        """Add the sums of y.diff to bias.diff."""
        y_diff, (diff, is_sum) = y.read_diff(self.y_memory), bias.join_diff(self.plain)
        if self.is_half:
            self._sums.run(y_diff, diff, is_sum)
            return
        factors = ONE, ONE if is_sum else ZERO
        arguments = factors[0], self._y, address(y_diff), factors[1], self._bias, address(diff)
        self.binding.run("ConvolutionBackwardBias", *arguments)

    def _add_to(
        self, param: Blob, memory: DeviceMemory | ChannelsLast, run: Callable[[Any, bool], None]
    ) -> None:
        """Let `run` write a gradient into an array of `memory`, or add it to what is there, for param.diff."""
        if not isinstance(memory, ChannelsLast):
            run(*param.join_diff(self.plain))
            return
        xp = self.engine.xp
        values = xp.empty(memory.array_shape, self.engine.memories.half)
        run(values, False)
        diff, is_sum = param.join_diff(self.plain)
        gradient = xp.empty(diff.shape, diff.dtype) if is_sum else diff
        memory.to_plain(values, gradient)
        if is_sum:
            diff += gradient

    def _make_passes(self, spec: ConvolutionSpec, fine: Shape, coarse: Shape, weight: Shape) -> None:
        num_missing = len(fine) - 2 - len(spec.stride)  # axes of length 1 before those of the spec
        stride, dilation = ((1,) * num_missing + given for given in (spec.stride, spec.dilation))
        pad = (0,) * num_missing + spec.pad
        geometry = Geometry(stride, pad, dilation, spec.group, self.dtype)
        binding, last = self.binding, self.is_half
        images: list[Descriptor] = [binding.tensor(shape, self.dtype, last) for shape in (fine, coarse)]
        a, b = (Operand(shape, image, last) for shape, image in zip((fine, coarse), images, strict=True))
        w = Operand(weight, binding.filter(weight, self.dtype, last), last)
        self._correlate = Pass(self.engine, "Forward", geometry, a, w, b)
        self._spread = Pass(self.engine, "BackwardData", geometry, w, b, a)
        self._gradient = Pass(self.engine, "BackwardFilter", geometry, a, b, w)
