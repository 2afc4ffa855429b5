"""BatchNorm with the Scale and the ReLU behind it as one operation, where the engine has it: one pass, not three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import FusedBatchNormOperation, FusedBatchNormSpec, Wanted
from dtrain.core.layers.layer import FusedLayers, Layer
from dtrain.core.layers.relu import ReLU
from dtrain.core.layers.scale import Scale

if TYPE_CHECKING:
    from dtrain.core.layers.batch_norm import BatchNorm


class FusedBatchNorm(FusedLayers):
    """Does the work of `norm`, of `scale` if given and of `relu` if given; the first two keep their params."""

    def __init__(self, norm: BatchNorm, scale: Scale | None = None, relu: ReLU | None = None) -> None:
        self._norm = norm
        self._scale = scale
        self._relu = relu
        self._layers = [layer for layer in (norm, scale, relu) if layer is not None]
        self._make_operation()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the top from the bottom of `norm`; update the running sums as `norm` does."""
        norm = self._norm
        if self._spec is not norm.spec:  # it has been reshaped
            self._make_operation()
        keeps = any(layer.runs_backward for layer in self._layers)
        norm.prepare_statistics()
        self._operation.forward(bottom[0], top[0], norm.mean, norm.variance, *self._learned(), keeps)
        norm.enter_statistics(bottom[0].count)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the gradients of the bottom of `norm` and of the params of `scale`."""
        scale = self._scale
        wants = (False, False) if scale is None else (scale.wants_param(0), scale.wants_param(1))
        self._operation.backward(bottom[0], top[0], *self._learned(), Wanted(propagate_down[0], *wants))

    def let_go(self) -> None:
        """Forget the bottom, and where the top is 0."""
        self._operation.let_go()

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does the work of a ReLU too."""
        if self._relu is None and isinstance(behind, ReLU) and _can_fuse(behind):
            return _fuse(self._norm, self._scale, behind)
        return None

    def _make_operation(self) -> None:
        """Raises NotOffered where the engine has no code."""
        self._spec = self._norm.spec
        scale, shift = self._learned()
        whole = FusedBatchNormSpec(
            self._spec, scale is not None, shift is not None, relu=self._relu is not None
        )
        self._operation: FusedBatchNormOperation = self._norm.engine.create_own(whole)

    def _learned(self) -> tuple[Blob | None, Blob | None]:
        if self._scale is None:
            return None, None
        scale, *shift = self._scale.blobs
        return scale, shift[0] if shift else None


def fuse_with(norm: BatchNorm, behind: Layer, num_bottoms: int) -> FusedBatchNorm | None:
    """Return what does the work of `norm` and of a Scale or ReLU behind it; None where it is something else, `behind`
    learns no number a channel, the statistics are those of all ranks, or the engine has no code.
    """
    if norm.synchronised is not None:
        return None
    if isinstance(behind, ReLU) and _can_fuse(behind):
        return _fuse(norm, None, behind)
    if isinstance(behind, Scale) and num_bottoms == 1:
        param = behind.param.scale_param
        if param.axis == 1 and param.num_axes == 1:
            return _fuse(norm, behind)
    return None


def _can_fuse(relu: ReLU) -> bool:
    """Return whether the sign of the top is enough in backward, and its diff may be written over: no loss's may."""
    return relu.is_plain and not any(relu.param.loss_weight)


def _fuse(norm: BatchNorm, scale: Scale | None, relu: ReLU | None = None) -> FusedBatchNorm | None:
    try:
        return FusedBatchNorm(norm, scale, relu)
    except NotOffered:
        return None
