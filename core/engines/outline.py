"""Engines for GPUs in outline: what they would have operations for, on machines that need no GPU to say so.

A net that is built on one has its shapes, params and layers that run as one, and is never run: what it will take of
a GPU's memory is planned from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from dtrain.core.engines import operations as op
from dtrain.core.engines.engine import ENGINES, Engine, NotOffered
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.errors import UserError

Shape = tuple[int, ...]

_SPATIAL_AXES = range(1, 4)  # of a convolution
_AXES = range(2, 6)  # of what cuDNN sees
_MOST_NEIGHBOURS, _LEAST_K, _LEAST_BETA = 16, 1e-5, 0.01  # of a normalisation across channels


class Outlined:
    """What an engine would carry a spec out by, were it there. name: of the class."""

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, *_: Any) -> None:
        """Refuse: there is no GPU."""
        raise AssertionError(f"a net in outline does not run, got forward of {self.name}")

    backward = forward


class OutlinedCupy(ReferenceEngine):
    """The engine cupy in outline: it is the reference engine's code."""

    name: ClassVar[str] = "cupy"


class OutlinedCudnn(Engine):
    """The engine cudnn in outline. Which specs its operations refuse stands here once more; a test compares."""

    name: ClassVar[str] = "cudnn"

    def __init__(self, precision: str = "FLOAT32") -> None:
        self.precisions = ENGINES[self.name].precisions  # type: ignore[misc]
        super().__init__(precision)
        self.fallback = OutlinedCupy()
        self.memory, self.xp = self.fallback.memory, self.fallback.xp
        self.operations = dict.fromkeys(_OFFERED, _outline)


def create_outline(name: str, precision: str = "FLOAT32") -> Engine:
    """Return the GPU engine called `name` in outline. Raises UserError for a precision that it has not."""
    outlines: Mapping[str, type[Engine]] = {"cudnn": OutlinedCudnn, "cupy": OutlinedCupy}
    if name not in outlines:
        raise UserError(f"engine {name}: only those of GPUs have an outline, {', '.join(outlines)}")
    return outlines[name](precision)


def _outline(spec: Any, engine: Engine) -> Outlined:
    offers, name = _OFFERED[type(spec)]
    if not offers(spec):
        raise NotOffered
    if isinstance(spec, op.FusedWeightedSpec):  # what does most of it says how values lie
        return _outline(spec.operation, engine)
    return Outlined(name)


def _convolves(spec: op.ConvolutionSpec) -> bool:
    return len(spec.stride) in _SPATIAL_AXES and 0 not in (*spec.x_shape, *spec.y_shape)


def _multiplies(spec: op.InnerProductSpec) -> bool:
    return 0 not in (spec.num_rows, spec.num_inputs, spec.num_outputs)


def _adds(spec: op.EltwiseSpec) -> bool:
    return (
        spec.operation == "SUM" and set(spec.coeffs) == {1.0} and len(spec.coeffs) > 1 and 0 not in spec.shape
    )


def _activates(spec: op.ActivationSpec) -> bool:
    return not spec.negative_slope and 0 not in spec.x_shape


def _normalises(spec: op.BatchNormSpec) -> bool:
    return len(spec.x_shape) in _AXES and 0 not in spec.x_shape


def _inhibits(spec: op.LRNSpec) -> bool:
    is_known = spec.local_size <= _MOST_NEIGHBOURS and spec.k >= _LEAST_K and spec.beta >= _LEAST_BETA
    return is_known and not spec.within_channel and len(spec.x_shape) in _AXES and 0 not in spec.x_shape


def _joins(spec: op.FusedWeightedSpec) -> bool:
    is_convolution = isinstance(spec.operation, op.ConvolutionSpec)
    return is_convolution if spec.adds else True


_OFFERED: dict[type, tuple[Callable[[Any], bool], str]] = {
    op.ActivationSpec: (_activates, "Activation"),
    op.BatchNormSpec: (_normalises, "BatchNorm"),
    op.ConcatSpec: (lambda spec: spec.axis == 1 and not any(0 in shape for shape in spec.x_shapes), "Concat"),
    op.ConvolutionSpec: (_convolves, "Convolution"),
    op.EltwiseSpec: (_adds, "EltwiseSum"),
    op.FusedBatchNormSpec: (lambda spec: _normalises(spec.norm), "FusedBatchNorm"),
    op.FusedSumSpec: (lambda spec: _adds(spec.sum), "FusedSum"),
    op.FusedWeightedSpec: (_joins, ""),
    op.InnerProductSpec: (_multiplies, "InnerProduct"),
    op.LRNSpec: (_inhibits, "LRN"),
    op.PoolingSpec: (lambda spec: min(math.prod(spec.x_shape), math.prod(spec.y_shape)) > 0, "Pooling"),
    op.SoftmaxSpec: (lambda spec: 0 not in spec.x_shape, "Softmax"),
}
