"""Silence: reads blobs so that they are not outputs of the net."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity, Layer


@LAYERS.register("Silence")
class Silence(Layer):
    """Bottoms: anything. No tops. Follows caffe's silence_layer.cpp."""

    bottoms = Arity(1, None)
    tops = Arity(0, 0)
    backward_reads_bottoms = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing: there is no top."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Set the bottoms' gradients to 0."""
        for blob, wanted in zip(bottom, propagate_down, strict=True):
            if wanted:
                blob.write_diff(self.memory)[...] = 0
