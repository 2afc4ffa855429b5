"""Threshold: 1 where x exceeds a threshold, else 0."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, InPlace, Layer


@LAYERS.register("Threshold")
class Threshold(Layer):
    """Bottom and top: any shape. y = (x > threshold). Has no gradient. Follows caffe's threshold_layer.cpp."""

    in_place = InPlace.YES
    has_backward = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compare."""
        exceeds = bottom[0].read_data(self.memory) > self.param.threshold_param.threshold
        top[0].write_data(self.memory)[...] = exceeds

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: the net refuses to ask for a gradient here."""
