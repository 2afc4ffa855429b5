"""LRN: local response normalisation, x over a power of its neighbours' mean square."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import LRNSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, InPlace
from dtrain.core.layers.parts.shapes import check_num_axes
from dtrain.core.layers.parts.unary import UnaryLayer
from dtrain.proto import caffe_pb2


@LAYERS.register("LRN")
class LRN(UnaryLayer):
    """Bottom and top: (N, C, H, W). n = local_size.

    ACROSS_CHANNELS: y = x·(k + alpha/n·Σ x²)^−beta over n neighbouring channels. WITHIN_CHANNEL: y = x·(1 +
    alpha·avg(x²))^−beta over n×n pixels; k plays no part. Follows caffe's lrn_layer.cpp.
    """

    in_place = InPlace.NO  # both ways read x again after y has been written
    backward_reads_tops = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError unless local_size is odd."""
        size = self.param.lrn_param.local_size
        if size % 2 == 0:
            raise UserError(f"lrn_param.local_size must be odd, got {size}")

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError unless that has 4 axes."""
        check_num_axes(self, bottom[0], 4, "N, C, H, W")
        super().reshape(bottom, top)

    def spec(self, shape: tuple[int, ...]) -> LRNSpec:
        """Return the engine's LRN."""
        param = self.param.lrn_param
        within_channel = param.norm_region == caffe_pb2.LRNParameter.WITHIN_CHANNEL
        return LRNSpec(shape, param.local_size, param.alpha, param.beta, param.k, within_channel)
