"""EuclideanLoss: half the mean squared distance of two blobs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.loss import LossLayer, loss_weight


@LAYERS.register("EuclideanLoss")
class EuclideanLoss(LossLayer):
    """loss = Σ (a − b)² / (2N).

    Bottoms a, b: (N, …) with as many values per item; both get a gradient. Top: the loss. Follows caffe's
    euclidean_loss_layer.cpp, but an empty batch costs 0, not NaN.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError if the bottoms don't match item by item."""
        super().reshape(bottom, top)
        first, second = (math.prod(blob.shape[1:]) for blob in bottom)
        if first != second:
            raise UserError(
                f"the bottoms must have as many values per item, got {first} in {bottom[0].shape} "
                f"and {second} in {bottom[1].shape}"
            )
        self.difference = Blob(bottom[0].shape, bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss."""
        first, second = (blob.read_data(self.memory) for blob in bottom)
        difference = self.difference.write_data(self.memory)
        self.xp.subtract(first, second.reshape(first.shape), out=difference)
        flat = difference.reshape(-1)
        self.write_loss(top, self.engine.sum_squares(flat) / (2 * self.num_items(bottom)))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute ±(a − b)·loss_weight / N."""
        factor = loss_weight(top, self.memory) / self.num_items(bottom)
        difference = self.difference.read_data(self.memory)
        for blob, wanted, sign in zip(bottom, propagate_down, (1, -1), strict=True):
            if wanted:
                diff = blob.write_diff(self.memory)
                self.xp.multiply(difference.reshape(diff.shape), sign * factor, out=diff)
