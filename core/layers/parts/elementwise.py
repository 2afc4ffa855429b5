"""Layers that apply one function to each value by itself, written on arrays: AbsVal, ELU, Power, GELU and more.

ReLU, Sigmoid and TanH, which engines have code of their own for, stand on unary.py instead.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import InPlace, Layer


class ElementwiseLayer(Layer):
    """top = f(bottom), of one shape. Subclasses say in `value` what f is and in `slope` what its derivative is.

    The gradient is taken from x alone: working in place, x is kept. So it stays right whatever a layer behind
    writes over the top, also where Caffe, which keeps nothing, is silently wrong in place.
    """

    in_place = InPlace.YES

    @abstractmethod
    def value(self, x: Any, y: Any) -> None:
        """Overwrite y by f(x); both are flat, of one length and dtype, and share no memory."""

    @abstractmethod
    def slope(self, x: Any) -> Any:
        """Return the derivative f′(x): an array as long as x, which is flat, of its dtype or bool, or a number."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top the bottom's shape."""
        top[0].reshape(*bottom[0].shape)
        self.is_in_place = top[0] is bottom[0]
        self.kept = Blob((bottom[0].count,), bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute f(x)."""
        x = bottom[0].read_data(self.memory).reshape(-1)
        if self.is_in_place:
            kept = self.kept.write_data(self.memory)
            kept[...] = x
            x = kept
        self.value(x, top[0].write_data(self.memory).reshape(-1))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute dx = dy·f′(x)."""
        if propagate_down[0]:
            x = (self.kept if self.is_in_place else bottom[0]).read_data(self.memory).reshape(-1)
            y_diff = top[0].read_diff(self.memory).reshape(-1)
            self.xp.multiply(y_diff, self.slope(x), out=bottom[0].write_diff(self.memory).reshape(-1))
