"""ArgMax: which are the largest values, and how large they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("ArgMax")
class ArgMax(Layer):
    """Bottom: (N, …). Top: the indices of the `top_k` (1) largest values, largest first; of equals the larger index.

    Without `axis`, over all values of an item: (N, 1, top_k), and with out_max_val (N, 2, top_k), indices and then
    values; axes of 1 follow where the bottom has more than 3. With `axis`, along it: the bottom's shape with that
    axis top_k long, and with out_max_val the values alone. It has no gradient. Follows caffe's argmax_layer.cpp.
    """

    has_backward = False

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        return "sorts values, in which cupy waits" if self.param.argmax_param.top_k > 1 else ""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if there is no such axis, or there are fewer values than top_k."""
        param, shape = self.param.argmax_param, bottom[0].shape
        self.gives_both = param.out_max_val and not param.HasField("axis")
        if param.HasField("axis"):
            axis = self.canonical_axis(param.axis, len(shape), "argmax_param.axis")
            self.spread = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
            top_shape: tuple[int, ...] = (*shape[:axis], param.top_k, *shape[axis + 1 :])
        else:
            if not shape:
                raise UserError(f"{name_bottom(self, 0)} must have an axis of items, got a scalar")
            self.spread = (shape[0], math.prod(shape[1:]), 1)
            top_shape = (shape[0], 1 + self.gives_both, param.top_k, *[1] * (len(shape) - 3))
        if not 1 <= param.top_k <= self.spread[1]:
            raise UserError(
                f"argmax_param.top_k must be 1 to {self.spread[1]}, the number of values, got {param.top_k}"
            )
        top[0].reshape(*top_shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Find the largest values along the middle axis of (outer, values, inner)."""
        param = self.param.argmax_param
        x = bottom[0].read_data(self.memory).reshape(self.spread)
        indices = self._largest(x, param.top_k)
        y = (
            top[0]
            .write_data(self.memory)
            .reshape(self.spread[0], 1 + self.gives_both, param.top_k, self.spread[2])
        )
        if self.gives_both or not param.out_max_val:
            y[:, 0] = indices
        if param.out_max_val:
            y[:, -1] = self.xp.take_along_axis(x, indices, axis=1)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no gradient."""

    def _largest(self, x: Any, top_k: int) -> Any:
        """Return the indices (outer, top_k, inner) of the largest values; NaN counts as larger than all."""
        if top_k == 1:
            return x.shape[1] - 1 - self.xp.argmax(x[:, ::-1], axis=1)[:, None]
        return self.xp.argsort(x, axis=1, kind="stable")[:, : -top_k - 1 : -1]
