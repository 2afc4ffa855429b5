"""Embed: a row of a learned table for each index."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.rows import Picks
from dtrain.core.layers.parts.weighted import check_num_output


@LAYERS.register("Embed")
class Embed(Layer):
    """Bottom: indices, 0 to input_dim − 1, of any shape. Top: that shape and an axis of num_output more.

    top = weight[index] + bias. Params: weight (input_dim, num_output); bias (num_output) with bias_term. Indices get
    no gradient. Follows caffe's embed_layer.cpp.
    """

    no_gradient_bottoms = (0,)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the params. Raises UserError unless num_output and input_dim are positive."""
        param = self.param.embed_param
        check_num_output(param.num_output, "embed_param")
        if param.input_dim < 1:
            raise UserError(f"embed_param.input_dim must be at least 1, got {param.input_dim or 'none'}")
        self.add_param((param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_param((param.num_output,), param.bias_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top."""
        top[0].reshape(*bottom[0].shape, self.param.embed_param.num_output)
        self.picks = Picks(self, bottom[0], 0, "embed_param.input_dim is the number of rows", are_items=True)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Look the rows up. Raises UserError for an index that the table does not have."""
        param = self.param.embed_param
        self.picks.read(bottom[0], param.input_dim)
        y = top[0].write_data(self.memory).reshape(-1, param.num_output)
        self.picks.take(self.blobs[0].read_data(self.memory), y)
        if param.bias_term:
            y += self.blobs[1].read_data(self.memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Add each row's gradient to the row's of the table, and all of them to the bias's."""
        dy = top[0].read_diff(self.memory).reshape(-1, self.param.embed_param.num_output)
        if self.wants_param(0):
            self.picks.add(self.blobs[0].update_diff(self.memory), dy)
        if len(self.blobs) > 1 and self.wants_param(1):
            self.blobs[1].add_to_diff(dy.sum(axis=0), self.memory)
