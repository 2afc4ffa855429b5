"""Normalize: x scaled to length 1, then by a learned scale; SSD's layer of that name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, InPlace, Layer
from dtrain.core.layers.parts.channels import check_channels, num_channels
from dtrain.proto import caffe_pb2

ONE = caffe_pb2.FillerParameter(type="constant", value=1)


@LAYERS.register("Normalize")
class Normalize(Layer):
    """Bottom and top: (N, C, …). y = scale·x / sqrt(Σ x² + eps). An extension.

    The sum is over each item, without across_spatial over the channels at each place. Param: the scale, a scalar
    (), or (C) without channel_shared; 1 unless filled otherwise. Follows normalize_layer.cpp of SSD's Caffe but
    for two gradients: with a scale for each channel x gets the exact one, where SSD's holds for equal scales only,
    and a scale of 0 gets its own, where SSD's divides by it.
    """

    messages = ("norm_param",)
    in_place = InPlace.YES

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the scale. Raises UserError if the bottom has no channels."""
        param = self.param.norm_param
        self.num_channels = num_channels(self, bottom[0])
        filler = param.scale_filler if param.HasField("scale_filler") else ONE
        self.add_param(() if param.channel_shared else (self.num_channels,), filler)
        self.axes = (1, 2) if param.across_spatial else (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError if the number of channels has changed."""
        shape = bottom[0].shape
        check_channels(self, bottom[0], self.num_channels)
        self.split = (*shape[:2], math.prod(shape[2:]))
        top[0].reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Normalise and scale."""
        x = self._split(bottom[0].read_data(self.memory))
        self._length = self.xp.sqrt(self._sum(x * x) + self.param.norm_param.eps)
        self._unit = x / self._length
        self.xp.multiply(self._unit, self._scale(), out=self._split(top[0].write_data(self.memory)))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the scale's gradient, then, since it may overwrite the top's, that of x.

        With u = x / length and g = scale·dy: dscale = Σ dy·u, dx = (g − u·Σ g·u) / length.
        """
        dy = self._split(top[0].read_diff(self.memory))
        product = dy * self._unit
        if self.wants_param(0):
            shape = self.blobs[0].shape
            gradient = product.sum(axis=(0, 2) if shape else None).reshape(shape)
            self.blobs[0].add_to_diff(gradient, self.memory)
        if propagate_down[0]:
            product *= self._scale()
            gradient = dy * self._scale()
            gradient -= self._unit * self._sum(product)
            self.xp.divide(gradient, self._length, out=self._split(bottom[0].write_diff(self.memory)))

    def _sum(self, values: Any) -> Any:
        return values.sum(axis=self.axes, keepdims=True)

    def _split(self, array: Any) -> Any:
        return array.reshape(self.split)

    def _scale(self) -> Any:
        return self.blobs[0].read_data(self.memory).reshape(1, -1, 1)
