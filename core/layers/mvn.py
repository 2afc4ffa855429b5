"""MVN: each channel of each image shifted to mean 0 and, unless switched off, scaled to variance 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, InPlace, Layer
from dtrain.core.layers.parts.row_statistics import RowNormalisation, centred
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("MVN")
class MVN(Layer):
    """Bottom: up to 4 axes, N C H W; missing ones count as 1. Top: (N, C, H, W).

    y = (x − mean) / (sqrt(variance) + eps) with the biased variance of each channel of an image, with
    across_channels of each image; without normalize_variance y = x − mean. The gradient takes eps to be small
    against the deviation, as Caffe's does. Follows caffe's mvn_layer.cpp, which in place gets the gradient wrong;
    here what it needs is kept.
    """

    in_place = InPlace.YES

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Read the fields."""
        eps = self.param.mvn_param.eps
        self.rows = RowNormalisation(lambda variance: self.xp.sqrt(variance) + eps)
        self.normalises_variance = self.param.mvn_param.normalize_variance

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top its four axes. Raises UserError for more of them, or for fewer in place."""
        shape = bottom[0].shape
        if len(shape) > 4:
            raise UserError(
                f"{name_bottom(self, 0)} must have at most 4 axes (N, C, H, W), got shape {shape}"
            )
        if top[0] is bottom[0] and len(shape) < 4:
            raise UserError(f"the bottom must have 4 axes (N, C, H, W) in place, got shape {shape}")
        n, c, h, w = (bottom[0].legacy_shape(axis) for axis in range(4))
        self.matrix = (n, c * h * w) if self.param.mvn_param.across_channels else (n * c, h * w)
        top[0].reshape(n, c, h, w)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Normalise."""
        x = self._split(bottom[0].read_data(self.memory))
        result = self.rows.forward(x) if self.normalises_variance else centred(x)
        self._split(top[0].write_data(self.memory))[...] = result

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottom's gradient through mean and variance."""
        if propagate_down[0]:
            dy = self._split(top[0].read_diff(self.memory))
            result = self.rows.backward(dy) if self.normalises_variance else centred(dy)
            self._split(bottom[0].write_diff(self.memory))[...] = result

    def _split(self, array: Any) -> Any:
        return array.reshape(self.matrix)
