"""Eltwise: sum, product or maximum of blobs, value by value."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import EltwiseSpec
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, FusedLayers, Layer
from dtrain.core.layers.parts.fused_sum import fuse_with
from dtrain.core.layers.parts.shapes import check_equal_shapes
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)


@LAYERS.register("Eltwise")
class Eltwise(Layer):
    """Bottoms: two or more of one shape. Top: Σ coeff_i·x_i (SUM), Π x_i (PROD) or max x_i (MAX).

    Follows caffe's eltwise_layer.cpp.
    """

    bottoms = Arity(2, None)

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check coeff. Raises UserError unless there is none or, except for PROD, one per bottom."""
        param = self.param.eltwise_param
        self.operation_name = caffe_pb2.EltwiseParameter.EltwiseOp.Name(param.operation)
        if len(param.coeff) not in (0, len(bottom)):
            raise UserError(
                f"eltwise_param.coeff must be given once per bottom ({len(bottom)}) or not at all, "
                f"got {len(param.coeff)}"
            )
        if param.coeff and self.operation_name == "PROD":
            raise UserError("eltwise_param.coeff must be left out for PROD: it weighs the terms of SUM")
        if param.coeff and self.operation_name == "MAX":
            log.warning('layer "%s": eltwise_param.coeff plays no part in MAX, as in Caffe', self.name)
        # The rest is in what was kept of the forward pass: who was the largest.
        self.backward_reads_bottoms = self.backward_reads_tops = self.operation_name == "PROD"

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottoms' shape. Raises UserError if they differ."""
        check_equal_shapes(self, bottom)
        top[0].reshape(*bottom[0].shape)
        param = self.param.eltwise_param
        coeffs = tuple(param.coeff) or (1.0,) * len(bottom)
        # The other gradient of PROD needs the top, which a layer behind may have written over in place.
        is_stable = param.stable_prod_grad or bool(self.overwritten_by)
        self.spec = EltwiseSpec(bottom[0].shape, self.operation_name, coeffs, is_stable)
        self.operation = self.engine.create(self.spec)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the top."""
        self.operation.forward(bottom, top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottoms' gradients."""
        if any(propagate_down):
            self.operation.backward(bottom, top[0], propagate_down)

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does this layer's work and that of a ReLU in one."""
        return fuse_with(self, behind)

    @property
    def adds_two(self) -> bool:
        """Whether the top is the sum of two bottoms."""
        return self.spec.operation == "SUM" and self.spec.coeffs == (1.0, 1.0)
