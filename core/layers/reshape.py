"""Reshape: the same values under another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.view import ViewLayer

Shape = tuple[int, ...]


@LAYERS.register("Reshape")
class Reshape(ViewLayer):
    """Bottom: any shape. Top: axes axis … axis + num_axes − 1 (all by default) replaced by `shape`.

    In `shape` a dim 0 copies the bottom's, one −1 is inferred from the count. A negative axis counts from
    behind the last axis: −1 appends. Follows caffe's reshape_layer.cpp.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check `shape` by itself. Raises UserError for a dim below −1 or several −1."""
        self.dims = tuple(self.param.reshape_param.shape.dim)
        for dim in self.dims:
            if dim < -1:
                raise UserError(f"reshape_param.shape.dim must be -1, 0 or more, got {dim}")
        if self.dims.count(-1) > 1:
            raise UserError(f"reshape_param.shape must have at most one -1, got {self.dims.count(-1)}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top its shape and the bottom's memory, diff included, as Caffe does at once here."""
        super().reshape(bottom, top)
        top[0].share_diff(bottom[0])

    def top_shape(self, shape: Shape) -> Shape:
        """Replace the axes. Raises UserError if there are no such axes or the counts differ."""
        start, end = self._replaced_span(len(shape))
        dims = [self._copied(shape, start + i) if dim == 0 else dim for i, dim in enumerate(self.dims)]
        new = [*shape[:start], *dims, *shape[end:]]
        if -1 in dims:
            new[start + dims.index(-1)] = self._inferred(shape, -math.prod(new))
        if math.prod(new) != math.prod(shape):
            raise UserError(
                f"reshape_param.shape must keep the number of values, got {math.prod(shape)} in {shape} "
                f"and {math.prod(new)} in {tuple(new)}"
            )
        return tuple(new)

    def _replaced_span(self, num_axes: int) -> tuple[int, int]:
        param = self.param.reshape_param
        if not -num_axes - 1 <= param.axis <= num_axes:
            raise UserError(
                f"reshape_param.axis must be {-num_axes - 1} to {num_axes} for a bottom of {num_axes} axes, "
                f"got {param.axis}"
            )
        start = param.axis if param.axis >= 0 else num_axes + param.axis + 1
        if not -1 <= param.num_axes <= num_axes - start:
            raise UserError(
                f"reshape_param.num_axes must be -1 (all) to {num_axes - start} from axis {start} on, "
                f"got {param.num_axes}"
            )
        return start, num_axes if param.num_axes == -1 else start + param.num_axes

    def _copied(self, shape: Shape, axis: int) -> int:
        if axis >= len(shape):
            raise UserError(f"reshape_param.shape has a 0 for axis {axis}, but the bottom has shape {shape}")
        return shape[axis]

    def _inferred(self, shape: Shape, known: int) -> int:
        count = math.prod(shape)
        if known == 0 or count % known:
            raise UserError(f"reshape_param.shape can't infer -1: {count} values of {shape} over {known}")
        return count // known
