"""Layers whose top is their bottom under another shape: nothing is computed, memory is shared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import Layer


class ViewLayer(Layer):
    """The top shares the bottom's data. Subclasses say in `top_shape` how the top is shaped."""

    @abstractmethod
    def top_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the top's shape for a bottom of `shape`; the counts are equal."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top its shape and the bottom's memory."""
        top[0].reshape(*self.top_shape(bottom[0].shape))
        top[0].share_data(bottom[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Share again: the bottom may itself be a view whose memory was exchanged."""
        top[0].share_data(bottom[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Let the bottom have the top's diff."""
        if propagate_down[0]:
            bottom[0].share_diff(top[0])
