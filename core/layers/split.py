"""Split: one blob for several consumers. Nets insert it by themselves where a blob is read more than once."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import EltwiseSpec
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.view import show


@LAYERS.register("Split")
class Split(Layer):
    """Tops: each the bottom, sharing its data; the bottom's diff is the sum of theirs.

    Follows caffe's split_layer.cpp.
    """

    tops = Arity(1, None)
    backward_reads_bottoms = False
    backward_reads_tops = False

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops the bottom's shape and data."""
        for blob in top:
            blob.reshape(*bottom[0].shape)
            show(self, bottom[0], blob)
        spec = EltwiseSpec(bottom[0].shape, "SUM", (1.0,) * len(top))
        self.sum = self.engine.create(spec)
        self.diffs = [_diff_as_data(blob) for blob in (*top, bottom[0])]

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Show the data again: the bottom may itself be a view whose memory was exchanged."""
        for blob in top:
            show(self, bottom[0], blob)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum the tops' gradients."""
        if propagate_down[0]:
            self.sum.forward(self.diffs[:-1], self.diffs[-1])


def _diff_as_data(blob: Blob) -> Blob:
    """Return a blob whose data is the diff of `blob`, for operations that compute on data."""
    other = Blob(blob.shape, blob.dtype)
    other.data_tensor = blob.diff_tensor
    return other
