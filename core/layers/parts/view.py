"""Layers whose top is their bottom, or a param, under another shape: nothing is computed, memory is shared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import Layer


class ViewLayer(Layer):
    """The top shares the bottom's data (see `show`). Subclasses say in `top_shape` how the top is shaped."""

    backward_reads_bottoms = False
    backward_reads_tops = False
    shares_diffs = True

    @abstractmethod
    def top_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the top's shape for a bottom of `shape`; the counts are equal."""

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the top its shape and the bottom's data."""
        top[0].reshape(*self.top_shape(bottom[0].shape))
        show(self, bottom[0], top[0])

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Show the data again: the bottom may itself be a view whose memory was exchanged."""
        show(self, bottom[0], top[0])

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Let the bottom have the top's diff."""
        if propagate_down[0]:
            bottom[0].share_diff(top[0])


def show(layer: Layer, source: Blob, top: Blob) -> None:
    """Let a top of `layer` have the data of `source`: their memory, without a copy.

    Where a layer behind writes over the top in place, the top gets a copy: others may read `source` too, or need it
    for their gradients, or it may be a param. In Caffe it changes for all of them, silently.
    """
    if layer.overwritten_by and top is not source:
        values = top.write_data(layer.memory)
        values[...] = source.read_data(layer.memory).reshape(values.shape)
    else:
        top.share_data(source)
