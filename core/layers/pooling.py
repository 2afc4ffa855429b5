"""Pooling: the maximum, the mean or a sample of windows of a plane."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import PoolingOperation, PoolingSpec
from dtrain.core.engines.windows import Windows
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.shapes import check_num_axes
from dtrain.core.layers.parts.spatial import Window, no_room, pooling_window
from dtrain.core.layers.parts.stochastic_pooling import SampledPooling, WeightedPooling
from dtrain.proto import caffe_pb2

Shape = tuple[int, ...]

log = logging.getLogger(__name__)


@LAYERS.register("Pooling")
class Pooling(Layer):
    """Bottom: (N, C, H, W). Top 0: (N, C, P, Q). Top 1 (MAX only): the index h·W + w of each maximum.

    P = ceil((H + 2·pad − kernel) / stride) + 1, floor with round_mode FLOOR; with padding a last window that
    would start beyond the near padding and the input is left out. MAX never takes padding; AVE divides by the
    window's size clipped to H + pad. STOCHASTIC samples a unit of each window in TRAIN, with probability
    proportional to its activation, a function of (seed, layer, pass, rank), and weighs units by their activations
    in TEST; it takes no pad. global_pooling makes the window the whole plane. Follows caffe's pooling_layer.cpp
    and .cu.
    """

    tops = Arity(1, 2)
    backward_reads_tops = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the fields. Raises UserError for a second top unless MAX."""
        self.method = caffe_pb2.PoolingParameter.PoolMethod.Name(self.param.pooling_param.pool)
        if len(top) > 1 and self.method != "MAX":
            raise UserError(
                f"a second top (the index of each maximum) is for MAX pooling only, got {self.method}"
            )
        self.backward_reads_bottoms = self.method == "STOCHASTIC"

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        is_sampled = self.method == "STOCHASTIC" and self.phase == caffe_pb2.TRAIN
        return "draws random numbers on the host" if is_sampled else ""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError unless the bottom has 4 axes and room, and for padded STOCHASTIC."""
        check_num_axes(self, bottom[0], 4, "N, C, H, W")
        param, shape = self.param.pooling_param, bottom[0].shape
        window = pooling_window(param, (shape[2], shape[3]))
        if self.method == "STOCHASTIC" and any(window.pad):
            raise UserError(f"pooling_param.pad must be 0 for STOCHASTIC pooling, got {window.pad}")
        ceil = param.round_mode == caffe_pb2.PoolingParameter.CEIL
        sizes = [_output_size(shape[2 + axis], window, axis, ceil) for axis in range(2)]
        y_shape = (*shape[:2], *sizes)
        for blob in top:
            blob.reshape(*y_shape)
        self.operation = self._operation(window, shape, y_shape)
        self._warn_of_empty_windows(window, shape, y_shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the top, and the mask if it is asked for."""
        self.operation.forward(bottom[0], top[0], top[1] if len(top) > 1 else None)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottom's gradient; none flows through the mask."""
        if propagate_down[0]:
            self.operation.backward(bottom[0], top[0])

    def _operation(self, window: Window, shape: Shape, y_shape: Shape) -> PoolingOperation:
        if self.method != "STOCHASTIC":
            spec = PoolingSpec(shape, y_shape, self.method, window.kernel, window.stride, window.pad)
            operation: PoolingOperation = self.engine.create(spec)
            return operation
        windows = Windows(self.xp, shape, y_shape, window.kernel, window.stride, window.pad)
        if self.phase == caffe_pb2.TRAIN:
            return SampledPooling(windows, self.engine, lambda: self.context.random.for_pass(self.name))
        return WeightedPooling(windows, self.engine)

    def _warn_of_empty_windows(self, window: Window, shape: Shape, y_shape: Shape) -> None:
        axes = zip(shape[2:], y_shape[2:], window.stride, window.pad, strict=True)
        if any((output - 1) * stride >= size + pad for size, output, stride, pad in axes):
            log.warning(
                'layer "%s": the last window lies beyond the input, as in Caffe; it gives %s. Did you mean '
                "round_mode: FLOOR?",
                self.name,
                "the lowest float" if self.method == "MAX" else "0",
            )


def _output_size(size: int, window: Window, axis: int, ceil: bool) -> int:
    """Return how many windows there are along a spatial axis of `size`."""
    pad, stride = window.pad[axis], window.stride[axis]
    room = size + 2 * pad - window.kernel[axis]
    num_windows = (-(-room // stride) if ceil else room // stride) + 1
    if any(window.pad) and (num_windows - 1) * stride >= size + pad:
        num_windows -= 1
    if num_windows < 1 or size < 1:
        raise no_room("pooling_param", axis, size, window)
    return num_windows
