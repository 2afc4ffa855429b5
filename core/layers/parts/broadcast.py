"""A small blob laid over part of the axes of a large one: what Scale (and Bias) multiply or add.

Follows caffe's scale_layer.cpp and bias_layer.cpp.
"""

from __future__ import annotations

import math

from dtrain.core.errors import UserError

Shape = tuple[int, ...]


def learned_shape(shape: Shape, axis: int, num_axes: int, message: str) -> Shape:
    """Return `num_axes` axes of `shape` from `axis` (≥ 0) on, all with −1.

    Raises UserError in the name of `message` if there are not that many.
    """
    most = len(shape) - axis
    if not -1 <= num_axes <= most:
        raise UserError(
            f"{message}.num_axes must be -1 (all) to {most} from axis {axis} of {shape}, got {num_axes}"
        )
    return shape[axis:] if num_axes == -1 else shape[axis : axis + num_axes]


def spread(shape: Shape, small: Shape, axis: int) -> tuple[int, int, int]:
    """Return (outer, count, inner): `shape` is outer × small × inner, `small` beginning at `axis` (≥ 0).

    Raises UserError that names both shapes if they don't match there; a scalar fits everywhere.
    """
    first = axis if small else 0
    if shape[first : first + len(small)] != small:
        raise UserError(f"shape {small} must be that of the bottom {shape} from axis {axis} on")
    return math.prod(shape[:first]), math.prod(small), math.prod(shape[first + len(small) :])
