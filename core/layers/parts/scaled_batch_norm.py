"""BatchNorm and the Scale behind it as one operation, where the engine has it: one pass over the values, not two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import ScaledBatchNormOperation, ScaledBatchNormSpec, Wanted
from dtrain.core.layers.scale import Scale

if TYPE_CHECKING:
    from dtrain.core.layers.batch_norm import BatchNorm


class ScaledBatchNorm:
    """Does the work of `norm` and `scale`, which keep their params and running sums."""

    def __init__(self, norm: BatchNorm, scale: Scale) -> None:
        self._norm = norm
        self._scale = scale
        self._make_operation()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the top of `scale` from the bottom of `norm`; update the running sums as `norm` does."""
        norm = self._norm
        if self._spec is not norm.spec:  # it has been reshaped
            self._make_operation()
        with norm.statistics(bottom[0].count):
            self._operation.forward(bottom[0], top[0], norm.mean, norm.variance, *self._learned())

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the gradients of the bottom of `norm` and of the params of `scale`."""
        wanted = Wanted(propagate_down[0], self._scale.wants_param(0), self._scale.wants_param(1))
        self._operation.backward(bottom[0], top[0], *self._learned(), wanted)

    def _make_operation(self) -> None:
        """Raises NotOffered where the engine has no code."""
        self._spec = self._norm.spec
        whole = ScaledBatchNormSpec(self._spec, shift=bool(self._scale.param.scale_param.bias_term))
        self._operation: ScaledBatchNormOperation = self._norm.engine.create_own(whole)

    def _learned(self) -> tuple[Blob, Blob | None]:
        blobs = self._scale.blobs
        return blobs[0], blobs[1] if len(blobs) > 1 else None


def fuse(norm: BatchNorm, scale: Scale, num_bottoms: int) -> ScaledBatchNorm | None:
    """Return what does the work of both; None where `scale` learns no number a channel, or the engine has no code."""
    param = scale.param.scale_param
    is_per_channel = num_bottoms == 1 and param.axis == 1 and param.num_axes == 1
    if not is_per_channel or norm.synchronised is not None:
        return None
    try:
        return ScaledBatchNorm(norm, scale)
    except NotOffered:
        return None
