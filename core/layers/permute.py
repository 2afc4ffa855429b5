"""Permute: a blob with its axes in another order."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("Permute")
class Permute(Layer):
    """Bottom: any shape. Top: its axis i is the bottom's axis order[i].

    Axes that `order` leaves out follow in their own order. If nothing moves, the top shares the bottom's data and
    diff. Follows permute_layer.cpp of weiliu89's caffe (SSD).
    """

    backward_reads_bottoms = False
    backward_reads_tops = False
    shares_diffs = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError if `order` names an axis twice."""
        self.order = tuple(self.param.permute_param.order)
        if len(set(self.order)) < len(self.order):
            raise UserError(
                f"permute_param.order must name each axis once, got {', '.join(map(str, self.order))}"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if there is no such axis."""
        shape = bottom[0].shape
        if any(axis >= len(shape) for axis in self.order):
            raise UserError(
                f"permute_param.order must name axes of {name_bottom(self, 0)}, 0 to {len(shape) - 1} of {shape}, "
                f"got {max(self.order)}"
            )
        rest = [axis for axis in range(len(shape)) if axis not in self.order]
        self.axes = (*self.order, *rest)
        self.is_identity = self.axes == tuple(range(len(shape)))
        top[0].reshape(*(shape[axis] for axis in self.axes))
        if self.is_identity:
            top[0].share_data(bottom[0])
            top[0].share_diff(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Transpose."""
        if self.is_identity:
            top[0].share_data(bottom[0])
        else:
            top[0].write_data(self.memory)[...] = bottom[0].read_data(self.memory).transpose(self.axes)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Transpose back."""
        if not propagate_down[0]:
            return
        if self.is_identity:
            bottom[0].share_diff(top[0])
        else:
            bottom[0].write_diff(self.memory).transpose(self.axes)[...] = top[0].read_diff(self.memory)
