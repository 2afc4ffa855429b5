"""Layers with a weight and a bias that an operation of the engine applies to each bottom."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ConvolutionSpec, InnerProductSpec, Wanted, WeightedOperation
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import FusedLayers, Layer
from dtrain.core.layers.parts.fused_weighted import fuse_with
from dtrain.proto import caffe_pb2


class WeightedLayer(Layer):
    """top[i] = operation(bottom[i], weight, bias); subclasses make the `operations` by `spec` in reshape."""

    spec: ConvolutionSpec | InnerProductSpec
    operations: list[WeightedOperation]

    @property
    def weight(self) -> Blob:
        """Param 0."""
        return self.blobs[0]

    @property
    def bias(self) -> Blob | None:
        """Param 1, if there is one."""
        return self.blobs[1] if len(self.blobs) > 1 else None

    def add_params(
        self,
        weight_shape: tuple[int, ...],
        num_output: int,
        param: caffe_pb2.ConvolutionParameter | caffe_pb2.InnerProductParameter,
    ) -> None:
        """Append the weight and, with bias_term, the bias (num_output), filled as `param` says."""
        self.add_param(weight_shape, param.weight_filler)
        if param.bias_term:
            self.add_param((num_output,), param.bias_filler)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Apply the operation to each bottom."""
        for operation, x, y in zip(self.operations, bottom, top, strict=True):
            operation.forward(x, self.weight, self.bias, y)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottoms' gradients and add to those of weight and bias, each where wanted."""
        for operation, x, y, wants_x in zip(self.operations, bottom, top, propagate_down, strict=True):
            wanted = self.wanted(wants_x)
            if wanted.x or wanted.weight or wanted.bias:
                operation.backward(x, self.weight, self.bias, y, wanted)

    def wanted(self, wants_x: bool) -> Wanted:
        """Return which gradients are wanted, beside that of a bottom."""
        return Wanted(wants_x, self.wants_param(0), self.bias is not None and self.wants_param(1))

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does this layer's work and that of a sum or a ReLU in one."""
        return fuse_with(self, behind)


def check_num_output(num_output: int, message: str) -> None:
    """Raise UserError unless num_output is given and positive."""
    if num_output < 1:
        raise UserError(f"{message}.num_output must be at least 1, got {num_output or 'none'}")
