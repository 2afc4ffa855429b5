"""Concat: blobs one after the other along an axis."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ConcatSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, InPlace, Layer
from dtrain.core.layers.parts.shapes import name_bottom
from dtrain.core.layers.parts.view import show


@LAYERS.register("Concat")
class Concat(Layer):
    """Bottoms: equal shapes except along `axis` (1 by default; concat_dim is its old name). Top: their union.

    One bottom: the top shares its data and diff, and may be the bottom itself. Follows caffe's concat_layer.cpp.
    """

    bottoms = Arity(1, None)
    in_place = InPlace.YES
    backward_reads_bottoms = False
    backward_reads_tops = False
    shares_diffs = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError if the axis is given twice, and for several bottoms in place."""
        param = self.param.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise UserError(
                "concat_param.axis must not be given together with concat_dim (its old name), got both"
            )
        if len(bottom) > 1 and any(blob is top[0] for blob in bottom):
            raise UserError(
                "Concat must not work in place with several bottoms; give its top another name than theirs"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the sum of lengths along the axis. Raises UserError if other axes differ."""
        shape = bottom[0].shape
        axis = self._axis(len(shape))
        for i, blob in enumerate(bottom):
            if _without(blob.shape, axis) != _without(shape, axis):
                raise UserError(
                    f"all bottoms must have one shape but for axis {axis}, got {shape} from "
                    f"{name_bottom(self, 0)} and {blob.shape} from {name_bottom(self, i)}"
                )
        top[0].reshape(*shape[:axis], sum(blob.shape[axis] for blob in bottom), *shape[axis + 1 :])
        if len(bottom) == 1:
            show(self, bottom[0], top[0])
            top[0].share_diff(bottom[0])
        else:
            self.operation = self.engine.create(ConcatSpec(tuple(blob.shape for blob in bottom), axis))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy the bottoms into the top."""
        if len(bottom) == 1:
            show(self, bottom[0], top[0])
        else:
            self.operation.forward(bottom, top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Copy the top's gradient into the bottoms'."""
        if not any(propagate_down):
            return
        if len(bottom) == 1:
            bottom[0].share_diff(top[0])  # whose memory may have been exchanged by a view behind
        else:
            self.operation.backward(bottom, top[0], propagate_down)

    def _axis(self, num_axes: int) -> int:
        param = self.param.concat_param
        field = "concat_dim" if param.HasField("concat_dim") else "axis"
        return self.canonical_axis(getattr(param, field), num_axes, f"concat_param.{field}")


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, tuple[int, ...]]:
    return len(shape), shape[:axis] + shape[axis + 1 :]
