"""PReLU: max(x, 0) + slope·min(x, 0) with learned slopes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, InPlace, Layer
from dtrain.core.layers.parts.channels import check_channels, num_channels
from dtrain.proto import caffe_pb2

QUARTER = caffe_pb2.FillerParameter(type="constant", value=0.25)


@LAYERS.register("PReLU")
class PReLU(Layer):
    """Bottom and top: (N, C, …). The gradient at 0 is the slope.

    Param: the slopes (C), or with channel_shared one as a scalar (); 0.25 unless filled otherwise. Working in
    place, x is kept for the gradients. Follows caffe's prelu_layer.cpp.
    """

    in_place = InPlace.YES

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the slopes. Raises UserError if the bottom has no channels."""
        param = self.param.prelu_param
        self.num_channels = num_channels(self, bottom[0])
        filler = param.filler if param.HasField("filler") else QUARTER
        self.add_param(() if param.channel_shared else (self.num_channels,), filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError if the number of channels has changed."""
        shape = bottom[0].shape
        check_channels(self, bottom[0], self.num_channels)
        top[0].reshape(*shape)
        rows = shape[0] if self.blobs[0].shape else shape[0] * shape[1]
        self.split = (rows, self.blobs[0].count, math.prod(shape[2:]))
        self.is_in_place = top[0] is bottom[0]
        self.kept = Blob(shape, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute max(x, 0) + slope·min(x, 0)."""
        x = self._split(bottom[0].read_data(self.memory))
        if self.is_in_place:
            self._split(self.kept.write_data(self.memory))[...] = x
        below = self.xp.minimum(x, 0)
        below *= self._slopes()
        y = self._split(top[0].write_data(self.memory))
        self.xp.maximum(x, 0, out=y)
        y += below

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the slopes' gradient, then, since it may overwrite the top's, that of x."""
        x = self._split((self.kept if self.is_in_place else bottom[0]).read_data(self.memory))
        dy = self._split(top[0].read_diff(self.memory))
        if self.wants_param(0):
            below = self.xp.minimum(x, 0)
            below *= dy
            gradient = below.sum(axis=(0, 2)).reshape(self.blobs[0].shape)
            self.blobs[0].add_to_diff(gradient, self.memory)
        if propagate_down[0]:
            slope = (x > 0) * (1 - self._slopes())  # several times as fast as xp.where
            slope += self._slopes()
            self.xp.multiply(dy, slope, out=self._split(bottom[0].write_diff(self.memory)))

    def _split(self, array: Any) -> Any:
        return array.reshape(self.split)

    def _slopes(self) -> Any:
        return self.blobs[0].read_data(self.memory).reshape(1, -1, 1)
