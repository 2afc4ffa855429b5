"""SPP: spatial pyramid pooling, as many values for a plane of any size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.core.layers.parts.shapes import check_num_axes
from dtrain.core.layers.pooling import Pooling
from dtrain.proto import caffe_pb2

METHODS = {
    caffe_pb2.SPPParameter.MAX: caffe_pb2.PoolingParameter.MAX,
    caffe_pb2.SPPParameter.AVE: caffe_pb2.PoolingParameter.AVE,
    caffe_pb2.SPPParameter.STOCHASTIC: caffe_pb2.PoolingParameter.STOCHASTIC,
}


@dataclass
class Level:
    """One level of the pyramid: a Pooling with its own bottom, which shares the pyramid's data, and top."""

    pooling: Pooling
    bottom: Blob
    top: Blob


@LAYERS.register("SPP")
class SPP(Layer):
    """Bottom: (N, C, H, W). Top: (N, C·(1 + 4 + … + 4^(pyramid_height − 1))); pyramid_height 1: (N, C, 1, 1).

    Level l pools 2^l × 2^l windows: kernel = stride = ceil(H / 2^l) and pad = ceil((kernel·2^l − H) / 2), for the
    width likewise; the levels' values (C, rows, columns) follow each other. `pool` is Pooling's. Follows caffe's
    spp_layer.cpp.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError unless pyramid_height is given and positive."""
        height = self.param.spp_param.pyramid_height
        if height < 1:
            raise UserError(f"spp_param.pyramid_height must be at least 1, got {height or 'none'}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Make the levels anew. Raises UserError if a level has more windows than the plane has room for."""
        check_num_axes(self, bottom[0], 4, "N, C, H, W")
        self.levels = [self._make_level(i, bottom[0]) for i in range(self.param.spp_param.pyramid_height)]
        for level in self.levels[1:]:
            # One memory for all: each is added to the whole before the next is computed.
            level.bottom.share_diff(self.levels[0].bottom)
        if len(self.levels) == 1:
            top[0].reshape(*self.levels[0].top.shape)
        else:
            lengths = [math.prod(level.top.shape[1:]) for level in self.levels]
            top[0].reshape(bottom[0].shape[0], sum(lengths))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Pool each level."""
        for level, part in self._parts(top[0].write_data(self.memory)):
            level.bottom.share_data(bottom[0])
            level.pooling.forward([level.bottom], [level.top])
            part[...] = level.top.read_data(self.memory).reshape(part.shape)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Sum up the gradients of all levels."""
        if not propagate_down[0]:
            return
        dx = bottom[0].write_diff(self.memory)
        dx.fill(0)
        for level, part in self._parts(top[0].read_diff(self.memory)):
            level.top.write_diff(self.memory).reshape(part.shape)[...] = part
            level.pooling.backward([level.top], [True], [level.bottom])
            dx += level.bottom.read_diff(self.memory)

    def _parts(self, values: Any) -> Iterator[tuple[Level, Any]]:
        """Yield each level with its part (N, …) of an array of the top's shape."""
        start = 0
        for level in self.levels:
            end = start + math.prod(level.top.shape[1:])
            yield level, values[:, start:end]
            start = end

    def _make_level(self, index: int, bottom: Blob) -> Level:
        param = caffe_pb2.LayerParameter(name=f"{self.name}:{index}", type="Pooling")
        param.bottom.extend(self.param.bottom)
        pooling = param.pooling_param
        pooling.pool = METHODS[self.param.spp_param.pool]
        (pooling.kernel_h, pooling.pad_h), (pooling.kernel_w, pooling.pad_w) = (
            self._window(index, size) for size in bottom.shape[2:]
        )
        pooling.stride_h, pooling.stride_w = pooling.kernel_h, pooling.kernel_w
        level = Level(
            Pooling(param, self.context), Blob(bottom.shape, bottom.dtype), Blob((0,), bottom.dtype)
        )
        level.pooling.setup([level.bottom], [level.top])
        level.pooling.reshape([level.bottom], [level.top])
        return level

    def _window(self, index: int, size: int) -> tuple[int, int]:
        """Return kernel and pad of level `index` along a side of `size`."""
        num_windows = 2**index
        kernel = -(-size // num_windows)
        pad = (kernel * num_windows - size + 1) // 2
        if pad >= kernel or (pad and self.param.spp_param.pool == caffe_pb2.SPPParameter.STOCHASTIC):
            raise UserError(
                f"spp_param.pyramid_height must be at most {index} for a side of {size}: {num_windows} windows of "
                f"{kernel} would need a pad of {pad}"
                + (", which STOCHASTIC does not take" if kernel > pad else "")
                + f"; got {self.param.spp_param.pyramid_height}"
            )
        return kernel, pad
