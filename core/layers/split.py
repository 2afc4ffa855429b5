"""Split: one blob for several consumers. Nets insert it by themselves where a blob is read more than once."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.view import show


@LAYERS.register("Split")
class Split(Layer):
    """Tops: each the bottom, sharing its data; the bottom's diff is the sum of theirs.

    Follows caffe's split_layer.cpp.
    """

    tops = Arity(1, None)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops the bottom's shape and data."""
        for blob in top:
            blob.reshape(*bottom[0].shape)
            show(self, bottom[0], blob)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Show the data again: the bottom may itself be a view whose memory was exchanged."""
        for blob in top:
            show(self, bottom[0], blob)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum the tops' gradients."""
        if not propagate_down[0]:
            return
        diff = bottom[0].write_diff(self.memory)
        diff[...] = top[0].read_diff(self.memory)
        for blob in top[1:]:
            diff += blob.read_diff(self.memory)
