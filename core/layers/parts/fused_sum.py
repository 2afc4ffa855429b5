"""Eltwise that adds two blobs and the ReLU behind it as one operation, where the engine has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import FusedSumSpec, ManyToOneOperation
from dtrain.core.layers.layer import FusedLayers, Layer
from dtrain.core.layers.relu import ReLU

if TYPE_CHECKING:
    from dtrain.core.layers.eltwise import Eltwise


class FusedSum(FusedLayers):
    """Does the work of `eltwise` and of a ReLU."""

    def __init__(self, eltwise: Eltwise) -> None:
        self._eltwise = eltwise
        self._make_operation()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the top."""
        if self._spec is not self._eltwise.spec:  # it has been reshaped
            self._make_operation()
        self._operation.forward(bottom, top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottoms' gradients."""
        if any(propagate_down):
            self._operation.backward(bottom, top[0], propagate_down)

    def _make_operation(self) -> None:
        """Raises NotOffered where the engine has no code."""
        self._spec = self._eltwise.spec
        self._operation: ManyToOneOperation = self._eltwise.engine.create_own(FusedSumSpec(self._spec))


def fuse_with(eltwise: Eltwise, behind: Layer) -> FusedSum | None:
    """Return what does the work of both; None where `behind` is no plain ReLU, or the engine has no code."""
    if not (isinstance(behind, ReLU) and behind.is_plain):
        return None
    try:
        return FusedSum(eltwise)
    except NotOffered:
        return None
