"""ContrastiveLoss: pairs of one kind are pulled together, others pushed a margin apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.loss import LossLayer, loss_weight
from dtrain.core.layers.parts.shapes import name_bottom

SMALL_DISTANCE = 1e-4  # what backward adds to a distance before it divides by it


@LAYERS.register("ContrastiveLoss")
class ContrastiveLoss(LossLayer):
    """loss = Σ (s·d² + (1 − s)·max(margin − d, 0)²) / (2N), d = |a − b|.

    Bottoms a, b: (N, C), which both get a gradient. Bottom 2: s (N), similar unless its integer part is 0; it gets
    none. Top: the loss. contrastive_loss_param: margin (1); legacy_version: max(margin − d², 0) for dissimilar pairs.
    Follows caffe's contrastive_loss_layer.cpp, also in dividing by d + 1e-4 in backward; an empty batch costs 0,
    not NaN.
    """

    bottoms = Arity(3, 3)
    no_gradient_bottoms = (2,)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the top a scalar. Raises UserError unless a and b are vectors of one length, and s fits."""
        super().reshape(bottom, top)
        a, b = bottom[0].shape, bottom[1].shape
        lengths = [math.prod(shape[1:2]) for shape in (a, b)]
        if lengths[0] != lengths[1] or math.prod((*a[2:], *b[2:])) != 1:
            raise UserError(
                f"the pairs must be vectors (N, C) of one length, got {a} from {name_bottom(self, 0)} "
                f"and {b} from {name_bottom(self, 1)}"
            )
        if bottom[2].count != a[0]:
            raise UserError(
                f"{name_bottom(self, 2)} must have one value per pair ({a[0]}), got {bottom[2].count} "
                f"in shape {bottom[2].shape}"
            )
        self.difference = Blob((a[0], lengths[0]), bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the loss, and what the difference of each pair is multiplied by in backward."""
        xp = self.xp
        difference = self.difference.write_data(self.memory)
        a, b = (blob.read_data(self.memory).reshape(difference.shape) for blob in bottom[:2])
        xp.subtract(a, b, out=difference)
        squares = (difference * difference).sum(axis=1)
        similar = xp.trunc(bottom[2].read_data(self.memory).reshape(-1)) != 0
        apart, slopes = self._push_apart(squares)
        self.slopes = xp.where(similar, 1, slopes)[:, None].astype(difference.dtype)
        self.write_loss(top, xp.where(similar, squares, apart).sum() / (2 * self.num_items(bottom)))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute ±slope·(a − b)·loss_weight / N."""
        factors = self.slopes * (loss_weight(top, self.memory) / self.num_items(bottom))
        difference = self.difference.read_data(self.memory)
        for blob, wanted, sign in zip(bottom[:2], propagate_down[:2], (1, -1), strict=True):
            if wanted:
                diff = blob.write_diff(self.memory).reshape(difference.shape)
                self.xp.multiply(difference, sign * factors, out=diff)

    def _push_apart(self, squares: Any) -> tuple[Any, Any]:
        """Return what dissimilar pairs of these squared distances cost, and their slopes."""
        param = self.param.contrastive_loss_param
        if param.legacy_version:
            gap = self.xp.maximum(param.margin - squares, 0)
            return gap, -self.xp.sign(gap)
        distance = self.xp.sqrt(squares)
        gap = self.xp.maximum(param.margin - distance, 0)
        return gap * gap, -gap / (distance + SMALL_DISTANCE)
