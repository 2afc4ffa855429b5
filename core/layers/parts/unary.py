"""Layers of one bottom and one top of the same shape, carried out by one operation of the engine.

Activations, softmax and LRN are such; each says only which spec it asks the engine for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from dtrain.core.blob import Blob
from dtrain.core.engines.operations import ActivationSpec, LRNSpec, SoftmaxSpec
from dtrain.core.layers.layer import InPlace, Layer


class UnaryLayer(Layer):
    """top = f(bottom). Subclasses say in `spec` what f is; it may work in place unless they say otherwise.

    needs_top: whether the gradient is taken from the top. Where layers behind write over it in place, a copy is
    kept then, so that the gradient is right; in Caffe it is silently wrong.
    """

    in_place = InPlace.YES
    needs_top: ClassVar[bool] = True

    @abstractmethod
    def spec(self, shape: tuple[int, ...]) -> ActivationSpec | LRNSpec | SoftmaxSpec:
        """Return the operation on a bottom of `shape`."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].shape)
        self.operation = self.engine.create(self.spec(bottom[0].shape))
        self.kept = Blob(top[0].shape, top[0].dtype) if self.needs_top and self.overwritten_by else None

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the function."""
        self.operation.forward(bottom[0], top[0])
        if self.kept is not None:
            self.kept.write_data(self.memory)[...] = top[0].read_data(self.memory)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the bottom's gradient."""
        if not propagate_down[0]:
            return
        x, y = bottom[0], top[0]
        if self.kept is not None:
            self.kept.share_diff(y)
            x, y = self.kept if x is y else x, self.kept
        self.operation.backward(x, y)
