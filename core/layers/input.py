"""Input: blobs that come from outside."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.shapes import check_one_per_top, shape_of


@LAYERS.register("Input")
class Input(Layer):
    """Tops: the net's inputs, shaped by input_param.shape: one for all, one per top, or none (reshape later).

    Follows caffe's input_layer.cpp.
    """

    bottoms = Arity(0, 0)
    tops = Arity(1, None)
    has_backward = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops their first shapes. Raises UserError unless shape is given 0, 1 or num_tops times."""
        shapes = self.param.input_param.shape
        check_one_per_top(len(shapes), len(top), "input_param.shape", may_be_none=True)
        for i, blob in enumerate(top[: len(top) if shapes else 0]):
            blob.reshape(*shape_of(shapes[i % len(shapes)], "input_param.shape"))

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing: whoever fills the tops may have reshaped them."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing: the tops are filled from outside."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no bottom."""
