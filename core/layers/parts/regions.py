"""Regions of interest on maps of features: what ROIPooling and PSROIPooling share.

A region is a row [image, x1, y1, x2, y2], in pixels of the network's input, both corners included. Its place on
the map follows from spatial_scale; it is divided into bins, and each bin becomes one value of the top.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Arity, Layer
from dtrain.core.layers.parts.shapes import check_num_axes, name_bottom

Array = NDArray[Any]

ROW_LENGTH = 5
FARTHEST = 1e9  # corners are whole numbers soon, Caffe's of 32 bits


class RegionLayer(Layer):
    """Bottom 0: features (N, C, H, W). Bottom 1: regions (R, 5), which get a gradient of 0 where one is asked for."""

    bottoms = Arity(2, 2)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Raise UserError unless bottom 0 has 4 axes and bottom 1 rows of 5 values."""
        check_num_axes(self, bottom[0], 4, "N, C, H, W")
        shape = bottom[1].shape
        if not shape or bottom[1].count != shape[0] * ROW_LENGTH:
            raise UserError(
                f"{name_bottom(self, 1)} must have rows of {ROW_LENGTH} values (image, x1, y1, x2, y2), "
                f"got shape {shape}"
            )

    @property
    def needs_host(self) -> str:
        """Why it can't be captured."""
        return "looks at regions on the host"

    def read_regions(self, bottom: Sequence[Blob]) -> tuple[NDArray[np.intp], Array]:
        """Return the regions' images (R) and corners x1, y1, x2, y2 (R, 4), on the host.

        Raises UserError for an image that is not in the batch and for a corner that is no place at all.
        """
        rows = bottom[1].read_data().reshape(-1, ROW_LENGTH)
        num_images = bottom[0].shape[0]
        is_image = (rows[:, 0] > -1) & (rows[:, 0] < num_images)
        wrong = ~(is_image & (np.abs(rows[:, 1:]) < FARTHEST).all(axis=1))
        if wrong.any():
            row = int(np.argmax(wrong))
            values = ", ".join(f"{value:g}" for value in rows[row])
            raise UserError(
                f"{name_bottom(self, 1)} must have rows of an image, 0 to {num_images - 1}, and four corners "
                f"within {FARTHEST:g}, got {values} in row {row}"
            )
        return rows[:, 0].astype(np.intp), rows[:, 1:]

    def clear_regions(self, propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Write the regions' gradient, 0, if it is asked for."""
        if propagate_down[1]:
            bottom[1].write_diff(self.memory)[...] = 0


def round_half_away(values: Array) -> Array:
    """Round to whole numbers as C's round does: halves away from zero."""
    whole = np.trunc(values)
    return np.where(np.abs(values - whole) >= 0.5, whole + np.sign(values), whole)


def to_pixels(edges: Array, limit: int) -> NDArray[np.intp]:
    """Return edges of bins, whole numbers, as indices clipped to 0 … limit."""
    return np.clip(edges, 0, limit).astype(np.intp)
