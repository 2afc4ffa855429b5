"""Tile: a blob repeated along an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, InPlace, Layer


@LAYERS.register("Tile")
class Tile(Layer):
    """Bottom: any shape. Top: the same, `tiles` times as long along `axis` (1 by default).

    What lies from `axis` on is repeated as a whole. In place with tiles 1 alone. Follows caffe's tile_layer.cpp.
    """

    in_place = InPlace.YES

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError unless `tiles` is given and positive, and in place 1."""
        self.tiles = self.param.tile_param.tiles
        if self.tiles < 1:
            given = self.tiles if self.param.tile_param.HasField("tiles") else "none"
            raise UserError(f"tile_param.tiles must be at least 1, got {given}")
        if top[0] is bottom[0] and self.tiles > 1:
            raise UserError(
                f"tile_param.tiles must be 1 in place, got {self.tiles}; give the top another name"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if there is no such axis."""
        shape = bottom[0].shape
        axis = self.canonical_axis(self.param.tile_param.axis, len(shape), "tile_param.axis")
        self.outer, self.inner = math.prod(shape[:axis]), math.prod(shape[axis:])
        top[0].reshape(*shape[:axis], shape[axis] * self.tiles, *shape[axis + 1 :])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy the bottom `tiles` times."""
        if top[0] is not bottom[0]:
            x = bottom[0].read_data(self.memory).reshape(self.outer, 1, self.inner)
            top[0].write_data(self.memory).reshape(self.outer, self.tiles, self.inner)[...] = x

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum the gradients of all copies."""
        if propagate_down[0] and top[0] is not bottom[0]:
            dy = top[0].read_diff(self.memory).reshape(self.outer, self.tiles, self.inner)
            dx = bottom[0].write_diff(self.memory).reshape(self.outer, self.inner)
            dx[...] = dy[:, 0]
            for tile in range(1, self.tiles):
                dx += dy[:, tile]
