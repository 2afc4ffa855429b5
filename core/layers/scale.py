"""Scale: x times a factor that is learned or comes as a second bottom, plus, if wanted, a learned bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, InPlace, Layer
from dtrain.core.layers.parts.broadcast import learned_shape, spread
from dtrain.proto import caffe_pb2

ONE = caffe_pb2.FillerParameter(type="constant", value=1)


@LAYERS.register("Scale")
class Scale(Layer):
    """Bottom 0 and top: any shape. y = x·s (+ b), s and b laid over the axes of x from `axis` (1) on.

    One bottom: s is param 0, num_axes axes of x (1; −1: all, 0: a scalar), 1 unless filled otherwise.
    Two bottoms: s is bottom 1. With bias_term b is the last param, shaped as s. Follows caffe's
    scale_layer.cpp.
    """

    bottoms = Arity(1, 2)
    in_place = InPlace.YES
    backward_reads_tops = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the params. Raises UserError if x has no such axes."""
        param, shape = self.param.scale_param, bottom[0].shape
        if len(bottom) == 1:
            axis = self._axis(shape)
            filler = param.filler if param.HasField("filler") else ONE
            self.add_param(learned_shape(shape, axis, param.num_axes, "scale_param"), filler)
        if param.bias_term:
            self.add_param(self._factor(bottom).shape, param.bias_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the shape of x. Raises UserError if the factor does not fit x."""
        shape, factor = bottom[0].shape, self._factor(bottom)
        axis = self._axis(shape) if factor.shape else 0
        if self.param.scale_param.bias_term and self.blobs[-1].shape != factor.shape:
            raise UserError(
                f"the factor must keep the shape of the learned bias, {self.blobs[-1].shape}, got {factor.shape}"
            )
        self.spread = spread(shape, factor.shape, axis)
        top[0].reshape(*shape)
        self.is_in_place = top[0] is bottom[0]
        self.kept = Blob(
            shape, bottom[0].dtype
        )  # x, which the factor's gradient needs, when working in place
        self.product = Blob(shape, bottom[0].dtype)  # x·dy

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute x·s (+ b)."""
        x = bottom[0].read_data(self.memory)
        if self.is_in_place:
            self.kept.write_data(self.memory)[...] = x
        y = self._spread(top[0].write_data(self.memory))
        self.xp.multiply(self._spread(x), self._column(self._factor(bottom).read_data(self.memory)), out=y)
        if self.param.scale_param.bias_term:
            y += self._column(self.blobs[-1].read_data(self.memory))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the gradients of factor and bias, then, since it may overwrite the top's, that of x."""
        dy = self._spread(top[0].read_diff(self.memory))
        if self.param.scale_param.bias_term and self.wants_param(len(self.blobs) - 1):
            shift = self.blobs[-1]
            shift.add_to_diff(dy.sum(axis=(0, 2)).reshape(shift.shape), self.memory)
        self._backward_factor(dy, propagate_down, bottom)
        if propagate_down[0]:
            factor = self._column(self._factor(bottom).read_data(self.memory))
            self.xp.multiply(dy, factor, out=self._spread(bottom[0].write_diff(self.memory)))

    def _backward_factor(self, dy: Any, propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        is_learned = len(bottom) == 1
        if not (self.wants_param(0) if is_learned else propagate_down[1]):
            return
        x = (self.kept if self.is_in_place else bottom[0]).read_data(self.memory)
        product = self._spread(self.product.write_data(self.memory))
        self.xp.multiply(self._spread(x), dy, out=product)
        if is_learned:
            scale = self.blobs[0]
            scale.add_to_diff(product.sum(axis=(0, 2)).reshape(scale.shape), self.memory)
        else:
            diff = bottom[1].write_diff(self.memory)
            diff[...] = product.sum(axis=(0, 2)).reshape(diff.shape)

    def _axis(self, shape: tuple[int, ...]) -> int:
        return self.canonical_axis(self.param.scale_param.axis, len(shape), "scale_param.axis")

    def _factor(self, bottom: Sequence[Blob]) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    def _spread(self, array: Any) -> Any:
        return array.reshape(self.spread)

    def _column(self, array: Any) -> Any:
        return array.reshape(1, -1, 1)
