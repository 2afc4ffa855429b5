"""Bias: x plus a blob that is learned or comes as a second bottom."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity, InPlace, Layer
from dtrain.core.layers.parts.broadcast import learned_shape, spread


@LAYERS.register("Bias")
class Bias(Layer):
    """Bottom 0 and top: any shape. y = x + b, b laid over the axes of x from `axis` (1) on.

    One bottom: b is param 0, num_axes axes of x (1; −1: all, 0: a scalar), 0 unless filled otherwise. Two
    bottoms: b is bottom 1. Follows caffe's bias_layer.cpp.
    """

    bottoms = Arity(1, 2)
    in_place = InPlace.YES

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the param. Raises UserError if x has no such axes."""
        if len(bottom) == 1:
            param, shape = self.param.bias_param, bottom[0].shape
            shape = learned_shape(shape, self._axis(shape), param.num_axes, "bias_param")
            self.add_param(shape, param.filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the shape of x. Raises UserError if the bias does not fit x."""
        shape, bias = bottom[0].shape, self._bias(bottom)
        axis = self._axis(shape) if bias.shape else 0
        self.spread = spread(shape, bias.shape, axis)
        top[0].reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute x + b."""
        x = bottom[0].read_data(self.memory).reshape(self.spread)
        bias = self._bias(bottom).read_data(self.memory).reshape(1, -1, 1)
        self.xp.add(x, bias, out=top[0].write_data(self.memory).reshape(self.spread))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum dy up for the bias and pass it on to x."""
        dy = top[0].read_diff(self.memory)
        if len(bottom) == 1 and self.wants_param(0):
            gradient = dy.reshape(self.spread).sum(axis=(0, 2)).reshape(self.blobs[0].shape)
            self.blobs[0].add_to_diff(gradient, self.memory)
        if len(bottom) == 2 and propagate_down[1]:
            diff = bottom[1].write_diff(self.memory)
            diff[...] = dy.reshape(self.spread).sum(axis=(0, 2)).reshape(diff.shape)
        if propagate_down[0] and top[0] is not bottom[0]:
            bottom[0].write_diff(self.memory)[...] = dy

    def _axis(self, shape: tuple[int, ...]) -> int:
        return self.canonical_axis(self.param.bias_param.axis, len(shape), "bias_param.axis")

    def _bias(self, bottom: Sequence[Blob]) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]
