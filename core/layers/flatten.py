"""Flatten: several axes in a row become one."""

from __future__ import annotations

import math

from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.view import ViewLayer


@LAYERS.register("Flatten")
class Flatten(ViewLayer):
    """Bottom: any shape. Top: axes axis … end_axis (1 … −1 by default) merged into one.

    Follows caffe's flatten_layer.cpp.
    """

    def top_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Merge the axes. Raises UserError if there are no such axes."""
        param = self.param.flatten_param
        first = self.canonical_axis(param.axis, len(shape), "flatten_param.axis")
        last = self.canonical_axis(param.end_axis, len(shape), "flatten_param.end_axis")
        if first > last + 1:
            raise UserError(
                f"flatten_param.end_axis must not be before axis, got axis {first} and end_axis {last} "
                f"of {shape}"
            )
        return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
