"""PSROIPooling: position-sensitive regions of interest; each bin has channels of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.regions import Array, RegionLayer, round_half_away, to_pixels

SMALLEST_SIDE = 0.1  # of a region on the map, in pixels


@LAYERS.register("PSROIPooling")
class PSROIPooling(RegionLayer):
    """Bottoms: scores (N, D·g·g, H, W), regions (R, 5), see regions.py. Top: (R, D, g, g).

    psroi_pooling_param: spatial_scale, output_dim D, group_size g. Corners are rounded, the second moved by one
    pixel, then scaled; a region is at least 0.1 large. Bin (p, q) is the mean of channel (d·g + p)·g + q over the
    whole pixels that its rows and columns touch, from floor(p·side / g + start) to ceil((p + 1)·side / g + start)
    − 1, that lie on the map; one without pixels gives 0. Follows the layer of this name in R-FCN's fork of Caffe.

    Sums over windows are differences of four sums from the map's corner, in float64.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the params. Raises UserError unless all three are given and positive."""
        param = self.param.psroi_pooling_param
        for field in ("spatial_scale", "output_dim", "group_size"):
            value = getattr(param, field)
            if value <= 0:
                given = f"{value:g}" if param.HasField(field) else "none"
                raise UserError(f"psroi_pooling_param.{field} must be greater than 0, got {given}")
        self.num_outputs, self.group = param.output_dim, param.group_size

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError unless there is a channel for each output and bin."""
        super().reshape(bottom, top)
        needed, channels = self.num_outputs * self.group**2, bottom[0].shape[1]
        if channels != needed:
            raise UserError(
                f"the scores must have output_dim x group_size x group_size = {needed} channels, "
                f"got {channels} in shape {bottom[0].shape}"
            )
        top[0].reshape(bottom[1].shape[0], self.num_outputs, self.group, self.group)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the means. Raises UserError for a region that lies in no image."""
        self._find_corners(bottom)
        scores = bottom[0].read_data(self.memory)
        num_images, num_channels, height, width = scores.shape
        sums = self.xp.zeros((num_images, num_channels, height + 1, width + 1))
        sums[:, :, 1:, 1:] = scores.cumsum(axis=2, dtype=np.float64).cumsum(axis=3)
        flat = sums.reshape(-1)
        total = sum(sign * flat[corner] for sign, corner in self._corners)
        top[0].write_data(self.memory)[...] = total * self._weights

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Spread each bin's gradient evenly over its pixels: steps at its corners, summed up over the map."""
        self.clear_regions(propagate_down, bottom)
        if not propagate_down[0]:
            return
        num_images, num_channels, height, width = bottom[0].shape
        shape = (num_images, num_channels, height + 1, width + 1)
        shares = (top[0].read_diff(self.memory) * self._weights).reshape(-1)
        steps = self.xp.zeros(num_images * num_channels * (height + 1) * (width + 1))
        for sign, corner in self._corners:
            steps += sign * self.xp.bincount(corner.reshape(-1), weights=shares, minlength=steps.size)
        spread = steps.reshape(shape).cumsum(axis=2).cumsum(axis=3)
        bottom[0].write_diff(self.memory)[...] = spread[:, :, :height, :width]

    def _find_corners(self, bottom: Sequence[Blob]) -> None:
        """Find each bin's corners in an array (N, D·g·g, H + 1, W + 1), with signs, and its pixels' weight."""
        images, corners = self.read_regions(bottom)
        dtype = corners.dtype.type
        scale = dtype(self.param.psroi_pooling_param.spatial_scale)
        x1, y1, x2, y2 = (round_half_away(corners) + np.array([0, 0, 1, 1], dtype)).T * scale
        _, num_channels, height, width = bottom[0].shape
        top, below = (edge[:, None, :, None] for edge in self._edges(y1, y2, height))
        left, right = (edge[:, None, None, :] for edge in self._edges(x1, x2, width))
        channels = np.arange(num_channels).reshape(self.num_outputs, self.group, self.group)
        planes = images[:, None, None, None] * num_channels + channels

        def place(row: Array, column: Array) -> Any:
            return self.xp.asarray((planes * (height + 1) + row) * (width + 1) + column)

        self._corners = (
            (1, place(below, right)),
            (-1, place(top, right)),
            (-1, place(below, left)),
            (1, place(top, left)),
        )
        areas = (below - top) * (right - left)
        self._weights = self.xp.asarray((areas > 0) / np.maximum(areas, 1))

    def _edges(self, start: Array, end: Array, limit: int) -> tuple[Array, Array]:
        """Return the first pixels of each region's bins along one axis (R, g), and the ones behind the last."""
        dtype = start.dtype.type
        size = np.maximum(end - start, dtype(SMALLEST_SIDE))[:, None] / dtype(self.group)
        numbers = np.arange(self.group, dtype=start.dtype)
        first = to_pixels(np.floor(numbers * size + start[:, None]), limit)
        behind = to_pixels(np.ceil((numbers + 1) * size + start[:, None]), limit)
        return first, behind
