"""Crop: a blob cut down to the shape of another."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("Crop")
class Crop(Layer):
    """Bottoms: what is cropped, and a blob whose shape alone counts. Top: bottom 0 from `axis` (2) on cut to it.

    offset: where the cut begins, once for all axes from `axis` on or once for each; 0 by default. Bottom 1's
    gradient is 0. Follows caffe's crop_layer.cpp.
    """

    bottoms = Arity(2, 2)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if the cut is not within bottom 0."""
        shape, wanted = bottom[0].shape, bottom[1].shape
        axis = self.canonical_axis(self.param.crop_param.axis, len(shape), "crop_param.axis")
        if len(wanted) < len(shape):
            raise UserError(
                f"{name_bottom(self, 1)} must have as many axes as what is cropped, {shape}, got {wanted}"
            )
        offsets = self._offsets(len(shape) - axis)
        for i, offset in enumerate(offsets, start=axis):
            if offset + wanted[i] > shape[i]:
                raise UserError(
                    f"crop_param.offset plus the size in {name_bottom(self, 1)} must be at most {shape[i]} along "
                    f"axis {i}, got {offset} + {wanted[i]}"
                )
        cut = tuple(slice(offset, offset + wanted[i]) for i, offset in enumerate(offsets, start=axis))
        self.cut = (*[slice(None)] * axis, *cut)
        top[0].reshape(*shape[:axis], *wanted[axis : len(shape)])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy what is cut out."""
        top[0].write_data(self.memory)[...] = bottom[0].read_data(self.memory)[self.cut]

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Copy the gradient to where it was cut from, 0 elsewhere."""
        for blob in [blob for blob, wanted in zip(bottom, propagate_down, strict=True) if wanted]:
            blob.write_diff(self.memory).fill(0)
        if propagate_down[0]:
            bottom[0].update_diff(self.memory)[self.cut] = top[0].read_diff(self.memory)

    def _offsets(self, num_cropped: int) -> tuple[int, ...]:
        given = tuple(self.param.crop_param.offset) or (0,)
        if len(given) not in (1, num_cropped):
            raise UserError(
                f"crop_param.offset must be given once or once per axis from crop_param.axis on ({num_cropped}), "
                f"got {len(given)} values"
            )
        return given * num_cropped if len(given) == 1 else given
