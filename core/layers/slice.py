"""Slice: a blob cut into pieces along an axis; the reverse of Concat."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, InPlace, Layer
from dtrain.core.layers.parts.view import show

Shape = tuple[int, ...]


@LAYERS.register("Slice")
class Slice(Layer):
    """Bottom: any shape. Tops: its pieces along `axis` (1 by default; slice_dim is its old name).

    slice_point: where all tops but the first begin; none: equal pieces. One top shares the bottom's data and diff,
    and may be the bottom itself. Follows caffe's slice_layer.cpp.
    """

    tops = Arity(1, None)
    in_place = InPlace.YES
    backward_reads_bottoms = False
    backward_reads_tops = False
    shares_diffs = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError if the axis is given twice, for other than one slice_point per cut, and in place."""
        param = self.param.slice_param
        if param.HasField("axis") and param.HasField("slice_dim"):
            raise UserError(
                "slice_param.axis must not be given together with slice_dim (its old name), got both"
            )
        if param.slice_point and len(param.slice_point) != len(top) - 1:
            raise UserError(
                f"slice_param.slice_point must be given once per cut ({len(top) - 1} for {len(top)} tops), got "
                f"{len(param.slice_point)}"
            )
        if len(top) > 1 and any(blob is bottom[0] for blob in top):
            raise UserError(
                "Slice must not work in place with several tops; give them other names than the bottom"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError for cuts that the axis does not have."""
        shape = bottom[0].shape
        axis = self._axis(len(shape))
        cuts = (0, *self._cuts(shape[axis], len(top)), shape[axis])
        self.pieces = [(*[slice(None)] * axis, slice(*ends)) for ends in itertools.pairwise(cuts)]
        for blob, (start, end) in zip(top, itertools.pairwise(cuts), strict=True):
            blob.reshape(*shape[:axis], end - start, *shape[axis + 1 :])
        if len(top) == 1:
            show(self, bottom[0], top[0])
            top[0].share_diff(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy the pieces into the tops."""
        if len(top) == 1:
            show(self, bottom[0], top[0])
            return
        x = bottom[0].read_data(self.memory)
        for blob, piece in zip(top, self.pieces, strict=True):
            blob.write_data(self.memory)[...] = x[piece]

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Copy the tops' gradients into the bottom's."""
        if not propagate_down[0]:
            return
        if len(top) == 1:
            bottom[0].share_diff(top[0])
            return
        dx = bottom[0].write_diff(self.memory)
        for blob, piece in zip(top, self.pieces, strict=True):
            dx[piece] = blob.read_diff(self.memory)

    def _axis(self, num_axes: int) -> int:
        param = self.param.slice_param
        field = "slice_dim" if param.HasField("slice_dim") else "axis"
        return self.canonical_axis(getattr(param, field), num_axes, f"slice_param.{field}")

    def _cuts(self, length: int, num_tops: int) -> Shape:
        points = tuple(self.param.slice_param.slice_point)
        if not points:
            if length % num_tops:
                raise UserError(
                    f"an axis cut into {num_tops} equal pieces must have a length that they divide, got "
                    f"{length}; or give slice_param.slice_point"
                )
            return (
                tuple(range(length // num_tops, length, length // num_tops))
                if length
                else (0,) * (num_tops - 1)
            )
        if any(start >= end for start, end in itertools.pairwise((0, *points))) or points[-1] > length:
            raise UserError(
                f"slice_param.slice_point must rise from above 0 to at most {length}, the axis' length, got "
                f"{', '.join(map(str, points))}"
            )
        return points
