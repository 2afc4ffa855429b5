"""LayerNorm: each item shifted and scaled to mean 0 and variance 1, then by a learned scale and bias."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, InPlace, Layer
from dtrain.core.layers.parts.row_statistics import RowNormalisation
from dtrain.proto import caffe_pb2

ONE = caffe_pb2.FillerParameter(type="constant", value=1)


@LAYERS.register("LayerNorm")
class LayerNorm(Layer):
    """Bottom and top: any shape with `axis` (1, or counted from the end). An extension.

    y = (x − mean) / sqrt(variance + eps)·scale + bias; mean and biased variance are over the axes from `axis` on.
    Params: scale (1 unless filled otherwise) and bias (0), both of the shape of those axes; none with
    affine: false. Source: Ba et al., Layer normalization, 2016.
    """

    in_place = InPlace.YES

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create scale and bias. Raises UserError if there is no such axis."""
        param = self.param.layer_norm_param
        self.rows = RowNormalisation(lambda variance: self.xp.sqrt(variance + param.eps))
        if param.affine:
            shape = bottom[0].shape[self._axis(bottom[0].shape) :]
            self.add_param(shape, param.scale_filler if param.HasField("scale_filler") else ONE)
            self.add_param(shape, param.bias_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape. Raises UserError if scale and bias no longer fit."""
        shape = bottom[0].shape
        axis = self._axis(shape)
        if self.blobs and shape[axis:] != self.blobs[0].shape:
            raise UserError(
                f"the bottom must keep the shape {self.blobs[0].shape} from axis {axis} on, as scale and bias "
                f"were made for, got shape {shape}"
            )
        self.matrix = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        top[0].reshape(*shape)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Normalise, scale and shift."""
        normalised = self.rows.forward(self._split(bottom[0].read_data(self.memory)))
        y = self._split(top[0].write_data(self.memory))
        if self.blobs:
            self.xp.multiply(normalised, self._row(0), out=y)
            y += self._row(1)
        else:
            y[...] = normalised

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the gradients of scale and bias, then, since it may overwrite the top's, that of x."""
        dy = self._split(top[0].read_diff(self.memory))
        if self.blobs and self.wants_param(0):
            self._add_to_diff(0, dy * self.rows.normalised)
        if self.blobs and self.wants_param(1):
            self._add_to_diff(1, dy)
        if propagate_down[0]:
            gradient = dy * self._row(0) if self.blobs else dy
            self._split(bottom[0].write_diff(self.memory))[...] = self.rows.backward(gradient)

    def _add_to_diff(self, index: int, gradients: Any) -> None:
        param = self.blobs[index]
        param.add_to_diff(gradients.sum(axis=0).reshape(param.shape), self.memory)

    def _axis(self, shape: tuple[int, ...]) -> int:
        return self.canonical_axis(self.param.layer_norm_param.axis, len(shape), "layer_norm_param.axis")

    def _split(self, array: Any) -> Any:
        return array.reshape(self.matrix)

    def _row(self, index: int) -> Any:
        return self.blobs[index].read_data(self.memory).reshape(1, -1)
