"""Parameter: a learned blob as a top."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.shapes import shape_of
from dtrain.core.layers.parts.view import show
from dtrain.proto import caffe_pb2


@LAYERS.register("Parameter")
class Parameter(Layer):
    """Top: param 0, shaped as parameter_param.shape says and zero at first; it shares the param's data.

    Its gradient is added to the param's, as every layer's is. Caffe lets the top share the param's diff too, so that
    of several passes (iter_size) only the last counts. Follows caffe's parameter_layer.hpp.
    """

    bottoms = Arity(0, 0)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the param. Raises UserError for a shape that can't be."""
        shape = shape_of(self.param.parameter_param.shape, "parameter_param.shape")
        self.add_param(shape, caffe_pb2.FillerParameter())  # constant, 0

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the param's shape and data."""
        top[0].reshape(*self.blobs[0].shape)
        show(self, self.blobs[0], top[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Show the data again: the param may have become that of another net, or of a layer it is shared with."""
        show(self, self.blobs[0], top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Add the top's gradient to the param's."""
        if self.wants_param(0):
            self.blobs[0].add_to_diff(top[0].read_diff(self.memory), self.memory)
