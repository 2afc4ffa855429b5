"""Rules on shapes that several layers share: shapes from prototxt, bottoms that must agree.

Part of the net's stage: layers call these in setup and reshape, the net puts file, line and layer in front.
"""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import MAX_AXES, Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.proto import caffe_pb2

Shape = tuple[int, ...]


def shape_of(given: caffe_pb2.BlobShape, what: str) -> Shape:
    """Return the shape that a BlobShape spells; raise UserError for a negative dim or more than 32 axes."""
    if len(given.dim) > MAX_AXES:
        raise UserError(f"{what} must have at most {MAX_AXES} axes, got {len(given.dim)}")
    for dim in given.dim:
        if dim < 0:
            raise UserError(f"{what}.dim must be 0 or more, got {dim}")
    return tuple(given.dim)


def check_one_per_top(num_given: int, num_tops: int, what: str, may_be_none: bool = False) -> None:
    """Raise UserError unless a repeated field is given once, once per top or, if it may, not at all."""
    allowed = {1, num_tops} | ({0} if may_be_none else set())
    if num_given not in allowed:
        words = ", ".join(str(number) for number in sorted(allowed))
        raise UserError(f"{what} must be given once or once per top ({words}), got {num_given}")


def name_bottom(layer: Layer, index: int) -> str:
    """Return how messages call a bottom: bottom 1 "conv2"."""
    names = layer.param.bottom
    return f'bottom {index} "{names[index]}"' if index < len(names) else f"bottom {index}"


def check_equal_shapes(layer: Layer, bottom: Sequence[Blob]) -> None:
    """Raise UserError that names the first bottom whose shape is not that of bottom 0."""
    for i, blob in enumerate(bottom):
        if blob.shape != bottom[0].shape:
            raise UserError(
                f"all bottoms must have one shape, got {bottom[0].shape} from {name_bottom(layer, 0)} "
                f"and {blob.shape} from {name_bottom(layer, i)}"
            )


def check_num_axes(layer: Layer, bottom: Blob, num_axes: int, letters: str) -> None:
    """Raise UserError unless `bottom` has `num_axes` axes, which messages call `letters`."""
    if len(bottom.shape) != num_axes:
        raise UserError(
            f"{name_bottom(layer, 0)} must have {num_axes} axes ({letters}), got shape {bottom.shape}"
        )
