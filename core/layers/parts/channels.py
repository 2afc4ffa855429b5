"""Layers with a param for each channel: bottoms must have channels, and keep their number."""

from __future__ import annotations

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.shapes import name_bottom


def num_channels(layer: Layer, bottom: Blob) -> int:
    """Return the length of axis 1. Raises UserError if the layer's first bottom has fewer than 2 axes."""
    if len(bottom.shape) < 2:
        raise UserError(
            f"{name_bottom(layer, 0)} must have at least 2 axes (N, C, …), got shape {bottom.shape}"
        )
    return bottom.shape[1]


def check_channels(layer: Layer, bottom: Blob, expected: int) -> None:
    """Raise UserError unless the layer's first bottom has the `expected` number of channels still."""
    if num_channels(layer, bottom) != expected:
        raise UserError(f"the bottom must keep {expected} channels at axis 1, got shape {bottom.shape}")
