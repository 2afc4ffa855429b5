"""Reduction: a sum over all axes from one on."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Layer
from dtrain.proto import caffe_pb2


@LAYERS.register("Reduction")
class Reduction(Layer):
    """Bottom: any shape. Top: its axes before `axis` (0 by default: a scalar).

    top = coeff · Σx (SUM), Σ|x| (ASUM), Σx² (SUMSQ) or Σx / number of values (MEAN), over the axes from `axis` on.
    The gradient of |x| at 0 is 0. Over no values all four are 0 (Caffe's MEAN is then NaN). Follows caffe's
    reduction_layer.cpp.
    """

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError if there is no such axis."""
        param, shape = self.param.reduction_param, bottom[0].shape
        axis = self.canonical_axis(param.axis, len(shape), "reduction_param.axis")
        self.operation = caffe_pb2.ReductionParameter.ReductionOp.Name(param.operation)
        self.rows = (math.prod(shape[:axis]), math.prod(shape[axis:]))
        self.factor = param.coeff / max(1, self.rows[1]) if self.operation == "MEAN" else param.coeff
        top[0].reshape(*shape[:axis])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the sums."""
        x = bottom[0].read_data(self.memory).reshape(self.rows)
        if self.operation == "SUMSQ":
            sums = self.engine.sum_squares(x)
        else:
            sums = (self.xp.abs(x) if self.operation == "ASUM" else x).sum(axis=1)
        self.xp.multiply(sums, self.factor, out=top[0].write_data(self.memory).reshape(-1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Give each value its share of the gradient."""
        if not propagate_down[0]:
            return
        scaled = top[0].read_diff(self.memory).reshape(-1, 1) * self.factor
        dx = bottom[0].write_diff(self.memory).reshape(self.rows)
        if self.operation in ("SUM", "MEAN"):
            dx[...] = scaled
            return
        x = bottom[0].read_data(self.memory).reshape(self.rows)
        if self.operation == "ASUM":
            self.xp.multiply(self.xp.sign(x), scaled, out=dx)
        else:
            self.xp.multiply(x, 2 * scaled, out=dx)
