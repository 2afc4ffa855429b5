"""Layers of one bottom and one top of the same shape, carried out by one operation of the engine.

Activations, softmax and LRN are such; each says only which spec it asks the engine for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ActivationSpec, LRNSpec, SoftmaxSpec
from dtrain.core.layers.layer import InPlace, Layer


class UnaryLayer(Layer):
    """top = f(bottom). Subclasses say in `spec` what f is; it may work in place unless they say otherwise."""

    in_place = InPlace.YES

    @abstractmethod
    def spec(self, shape: tuple[int, ...]) -> ActivationSpec | LRNSpec | SoftmaxSpec:
        """Return the operation on a bottom of `shape`."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].shape)
        self.operation = self.engine.create(self.spec(bottom[0].shape))

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the function."""
        self.operation.forward(bottom[0], top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottom's gradient."""
        if propagate_down[0]:
            self.operation.backward(bottom[0], top[0])
