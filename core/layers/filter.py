"""Filter: the items of a batch that a selector lets through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer, LayerContext
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.proto import caffe_pb2


@LAYERS.register("Filter")
class Filter(Layer):
    """Bottoms: one or more of (N, …), and last the selector (N) or (N, 1, …). Tops: (M, …) each, M chosen anew.

    Top i has the items of bottom i for which the selector is not 0, in their order. Before the first forward pass
    the tops are as large as the bottoms; each pass gives them the number that were selected, which may be 0. What is
    dropped has gradient 0; the selector gets none. Follows caffe's filter_layer.cpp.
    """

    bottoms = Arity(2, None)
    tops = Arity(1, None)

    def __init__(self, param: caffe_pb2.LayerParameter, context: LayerContext) -> None:
        super().__init__(param, context)
        # The last one, wherever that is: alone among the layers, this one does not know it beforehand.
        self.no_gradient_bottoms = (len(param.bottom) - 1,)  # type: ignore[misc]

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        return "takes a shape that depends on values"

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError unless there is one top per filtered bottom."""
        if len(top) != len(bottom) - 1:
            raise UserError(
                f"there must be one top for each bottom but the last, the selector: {len(bottom) - 1}, got {len(top)}"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops the bottoms' shapes. Raises UserError if the bottoms' numbers of items differ."""
        *filtered, selector = bottom
        num_items = selector.shape[:1]
        if not num_items or selector.count != num_items[0]:
            raise UserError(
                f"{name_bottom(self, len(filtered))}, the selector, must have one value per item, (N) or (N, 1, …), "
                f"got shape {selector.shape}"
            )
        for i, (blob, target) in enumerate(zip(filtered, top, strict=True)):
            if blob.shape[:1] != num_items:
                raise UserError(
                    f"{name_bottom(self, i)} must have as many items as the selector, {num_items[0]}, got shape "
                    f"{blob.shape}"
                )
            target.reshape(*blob.shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy what is selected; the tops take its number of items."""
        *filtered, selector = bottom
        selected = np.flatnonzero(selector.read_data())
        self.selected = self.xp.asarray(selected)
        for blob, target in zip(filtered, top, strict=True):
            target.reshape(selected.size, *blob.shape[1:])
            target.write_data(self.memory)[...] = blob.read_data(self.memory)[self.selected]

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Give the gradients to what was selected, 0 to the rest."""
        for blob, target, wanted in zip(bottom[:-1], top, propagate_down[:-1], strict=True):
            if wanted:
                diff = blob.write_diff(self.memory)
                diff.fill(0)
                diff[self.selected] = target.read_diff(self.memory)
