"""Convolution or InnerProduct with the sum and the ReLU behind it as one operation, where the engine has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dtrain.core.blob import Blob
from dtrain.core.engines.engine import NotOffered
from dtrain.core.engines.operations import FusedWeightedOperation, FusedWeightedSpec
from dtrain.core.layers.eltwise import Eltwise
from dtrain.core.layers.layer import FusedLayers, Layer
from dtrain.core.layers.relu import ReLU

if TYPE_CHECKING:
    from dtrain.core.layers.parts.weighted import WeightedLayer


class FusedWeighted(FusedLayers):
    """Does the work of `layer`, of one bottom; of an Eltwise that adds another blob, if `adds`; of a ReLU, if `relu`.

    Bottoms: that of `layer`, and the other blob. The top's diff may be written over in backward.
    """

    def __init__(self, layer: WeightedLayer, adds: bool = False, relu: bool = False) -> None:
        self._layer = layer
        self._adds = adds
        self._relu = relu
        self._make_operation()

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the top."""
        layer = self._layer
        if self._spec is not layer.spec:  # it has been reshaped
            self._make_operation()
        x, added = self._split(bottom)
        self._operation.forward(x, layer.weight, layer.bias, added, top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottoms' gradients and add to those of the params of `layer`, each where wanted."""
        layer = self._layer
        x, added = self._split(bottom)
        wanted = layer.wanted(propagate_down[0])
        wants_added = added is not None and propagate_down[1]
        self._operation.backward(x, layer.weight, layer.bias, added, top[0], wanted, wants_added)

    def fused_with(self, behind: Layer, num_bottoms: int, place: int) -> FusedLayers | None:
        """Return what does the work of a ReLU too."""
        return None if self._relu else _fuse(self._layer, behind, self._adds)

    def _split(self, bottom: Sequence[Blob]) -> tuple[Blob, Blob | None]:
        return (bottom[0], bottom[1]) if self._adds else (bottom[0], None)

    def _make_operation(self) -> None:
        """Raises NotOffered where the engine has no code."""
        self._spec = self._layer.spec
        whole = FusedWeightedSpec(self._spec, self._adds, self._relu)
        self._operation: FusedWeightedOperation = self._layer.engine.create_own(whole)


def fuse_with(layer: WeightedLayer, behind: Layer) -> FusedLayers | None:
    """Return what does the work of `layer` and of a ReLU, or an Eltwise that adds one blob; None where `behind` is
    something else, or the engine has no code.
    """
    if isinstance(behind, Eltwise) and behind.adds_two:
        return _try_to_fuse(layer, adds=True)
    return _fuse(layer, behind)


def _fuse(layer: WeightedLayer, behind: Layer, adds: bool = False) -> FusedLayers | None:
    # The diff of a top with a loss weight must stay: it is written once.
    if isinstance(behind, ReLU) and behind.is_plain and not any(behind.param.loss_weight):
        return _try_to_fuse(layer, adds, relu=True)
    return None


def _try_to_fuse(layer: WeightedLayer, adds: bool = False, relu: bool = False) -> FusedLayers | None:
    try:
        return FusedWeighted(layer, adds, relu)
    except NotOffered:
        return None
