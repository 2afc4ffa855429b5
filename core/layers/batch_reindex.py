"""BatchReindex: items of a batch picked by number."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.rows import Picks
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("BatchReindex")
class BatchReindex(Layer):
    """Bottoms: x (N, …), and indices (M) from 0 to N − 1. Top: (M, …), item i is x[indices[i]].

    An item may be picked often, or never. Indices get no gradient. Follows caffe's batch_reindex_layer.cpp.
    """

    bottoms = Arity(2, 2)
    no_gradient_bottoms = (1,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError unless x has items and the indices one axis."""
        if not bottom[0].shape:
            raise UserError(f"{name_bottom(self, 0)} must have an axis of items, got a scalar")
        if len(bottom[1].shape) != 1:
            raise UserError(f"{name_bottom(self, 1)} must have 1 axis (indices), got shape {bottom[1].shape}")
        top[0].reshape(*bottom[1].shape, *bottom[0].shape[1:])
        num_items = bottom[0].shape[0]
        self.picks = Picks(self, bottom[1], 1, f"{name_bottom(self, 0)} has {num_items} items")

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Pick the items. Raises UserError for an index that there is not."""
        self.picks.read(bottom[1], bottom[0].shape[0])
        self.picks.take(bottom[0].read_data(self.memory), top[0].write_data(self.memory))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum up the gradients of all picks of an item."""
        if propagate_down[0]:
            dx = bottom[0].write_diff(self.memory)
            dx.fill(0)
            self.picks.add(dx, top[0].read_diff(self.memory))
