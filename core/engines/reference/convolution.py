"""The reference engine's convolution and deconvolution: one correlation, used in its two directions.

Of the two kinds of correlation, depthwise.py is for a filter or two per channel, correlation.py for all else.
"""

from __future__ import annotations

from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import Engine
from dtrain.core.engines.operations import ConvolutionSpec, Shape, Wanted, one_batch_axis
from dtrain.core.engines.reference.correlation import Correlation
from dtrain.core.engines.reference.depthwise import DepthwiseCorrelation, is_depthwise
from dtrain.core.engines.reference.lowering import Lowering
from dtrain.core.engines.reference.phases import Phases


def create_convolution(spec: ConvolutionSpec, engine: Engine) -> Convolution:
    """Return what carries out `spec`, transposed or not."""
    return Deconvolution(spec, engine) if spec.transposed else Convolution(spec, engine)


class Convolution:
    """Carry out a ConvolutionSpec: y = weight ⋆ x + bias."""

    def __init__(self, spec: ConvolutionSpec, engine: Engine) -> None:
        self.memory = engine.memory
        self.x_shape = one_batch_axis(spec.x_shape, spec.axis)
        self.y_shape = one_batch_axis(spec.y_shape, spec.axis)
        fine, coarse = (self.y_shape, self.x_shape) if spec.transposed else (self.x_shape, self.y_shape)
        self.correlation = _create_correlation(spec, fine, coarse, engine)

    def forward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob) -> None:
        """Compute y.data."""
        x_data = x.read_data(self.memory).reshape(self.x_shape)
        y_data = y.write_data(self.memory).reshape(self.y_shape)
        bias_data = None if bias is None else bias.read_data(self.memory)
        self._apply(x_data, weight.read_data(self.memory), bias_data, y_data)

    def backward(self, x: Blob, weight: Blob, bias: Blob | None, y: Blob, wanted: Wanted) -> None:
        """Compute the wanted ones of x.diff, weight.diff (accumulated) and bias.diff (accumulated)."""
        y_diff = y.read_diff(self.memory).reshape(self.y_shape)
        if wanted.bias and bias is not None:
            bias.add_to_diff(y_diff.sum(axis=(0, *range(2, y_diff.ndim))), self.memory)
        if wanted.weight:
            x_data = x.read_data(self.memory).reshape(self.x_shape)
            self._add_weight_gradient(x_data, y_diff, weight.update_diff(self.memory))
        if wanted.x:
            x_diff = x.write_diff(self.memory).reshape(self.x_shape)
            self._apply_adjoint(y_diff, weight.read_data(self.memory), x_diff)

    def _apply(self, x: Any, weight: Any, bias: Any, y: Any) -> None:
        self.correlation.correlate(x, weight, bias, y)

    def _add_weight_gradient(self, x: Any, y_diff: Any, weight_diff: Any) -> None:
        self.correlation.add_weight_gradient(x, y_diff, weight_diff)

    def _apply_adjoint(self, y_diff: Any, weight: Any, x_diff: Any) -> None:
        self.correlation.spread(y_diff, weight, x_diff)


class Deconvolution(Convolution):
    """Carry out a transposed ConvolutionSpec: y = weightᵀ ⋆ x + bias, with y the fine side."""

    def _apply(self, x: Any, weight: Any, bias: Any, y: Any) -> None:
        self.correlation.spread(x, weight, y)
        if bias is not None:
            y += bias.reshape(-1, *[1] * (y.ndim - 2))

    def _add_weight_gradient(self, x: Any, y_diff: Any, weight_diff: Any) -> None:
        self.correlation.add_weight_gradient(y_diff, x, weight_diff)

    def _apply_adjoint(self, y_diff: Any, weight: Any, x_diff: Any) -> None:
        self.correlation.correlate(y_diff, weight, None, x_diff)


def _create_correlation(
    spec: ConvolutionSpec, fine: Shape, coarse: Shape, engine: Engine
) -> Correlation | DepthwiseCorrelation:
    """Return the faster kind of correlation between images of shapes `fine` and `coarse`, (N, C, spatial…)."""
    kernel = spec.weight_shape[2:]
    if is_depthwise(fine[1], coarse[1], spec.group, kernel):
        phases = Phases(fine[2:], kernel, spec.stride, spec.pad, spec.dilation)
        return DepthwiseCorrelation(engine, phases, coarse[2:], fine[1], coarse[1])
    lowering = Lowering(engine.xp, fine[2:], kernel, spec.stride, spec.pad, spec.dilation, coarse[2:])
    return Correlation(engine, lowering, fine[1], coarse[1], spec.group)
