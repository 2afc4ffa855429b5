"""ROIPooling: the largest feature in each bin of each region of interest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS
from dtrain.core.layers.parts.regions import Array, RegionLayer, round_half_away, to_pixels


class Side(NamedTuple):
    """Where a region lies along one axis of the map, and its bins, as slices of that span."""

    span: slice
    bins: list[slice]


@LAYERS.register("ROIPooling")
class ROIPooling(RegionLayer):
    """Bottoms: features (N, C, H, W), regions (R, 5), see regions.py. Top: (R, C, pooled_h, pooled_w).

    roi_pooling_param: pooled_h, pooled_w; spatial_scale (1). Corners are scaled, then rounded; a region is at least
    one pixel large. Bin p of n in a region of `size` pixels holds the pixels floor(p·size / n) to
    ceil((p + 1)·size / n) − 1 of it that lie on the map; one without pixels gives 0. The gradient goes to the first
    of the largest features. Follows the layer of this name in py-faster-rcnn's fork of Caffe.
    """

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Check the params. Raises UserError unless both numbers of bins are given."""
        param = self.param.roi_pooling_param
        for field, value in (("pooled_h", param.pooled_h), ("pooled_w", param.pooled_w)):
            if value < 1:
                raise UserError(f"roi_pooling_param.{field} must be at least 1, got {value or 'none'}")
        self.bins = (param.pooled_h, param.pooled_w)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the top. Raises UserError for bottoms of other shapes."""
        super().reshape(bottom, top)
        top[0].reshape(bottom[1].shape[0], bottom[0].shape[1], *self.bins)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute the maxima, of rows within columns. Raises UserError for a region that lies in no image."""
        self._find_sides(bottom)
        pixels = self._pixels(bottom)
        num_regions, num_channels = top[0].shape[:2]
        pooled = self.xp.empty((num_regions, *self.bins, num_channels), pixels.dtype)
        for region, (place, rows, columns) in enumerate(self._sides()):
            of_columns = self._maxima(pixels[place].transpose(1, 0, 2), columns)
            pooled[region] = self._maxima(of_columns.transpose(1, 0, 2), rows)
        top[0].write_data(self.memory)[...] = pooled.transpose(0, 3, 1, 2)

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Add each bin's gradient to the first feature that is its maximum: first row, then first column."""
        self.clear_regions(propagate_down, bottom)
        if not propagate_down[0]:
            return
        pixels = self._pixels(bottom)
        gradient = self.xp.zeros_like(pixels)
        diff = self.xp.ascontiguousarray(top[0].read_diff(self.memory).transpose(0, 2, 3, 1))
        for region, (place, rows, columns) in enumerate(self._sides()):
            features = pixels[place].transpose(1, 0, 2)
            maxima = self._maxima(features, columns).transpose(1, 0, 2)
            shares = self.xp.zeros_like(maxima)
            _give_to_first(maxima, rows, self._maxima(maxima, rows), diff[region], shares)
            to = gradient[place].transpose(1, 0, 2)
            _give_to_first(features, columns, maxima.transpose(1, 0, 2), shares.transpose(1, 0, 2), to)
        bottom[0].write_diff(self.memory)[...] = gradient.transpose(0, 3, 1, 2)

    def _pixels(self, bottom: Sequence[Blob]) -> Any:
        """Return the features as (N, H, W, C): what is done to a pixel is done to all its channels at once."""
        return self.xp.ascontiguousarray(bottom[0].read_data(self.memory).transpose(0, 2, 3, 1))

    def _find_sides(self, bottom: Sequence[Blob]) -> None:
        images, corners = self.read_regions(bottom)
        scale = corners.dtype.type(self.param.roi_pooling_param.spatial_scale)
        x1, y1, x2, y2 = round_half_away(corners * scale).T
        height, width = bottom[0].shape[2:]
        self._images = images.tolist()
        self._rows = _sides_of(y1, y2, self.bins[0], height)
        self._columns = _sides_of(x1, x2, self.bins[1], width)

    def _sides(self) -> Iterator[tuple[tuple[int, slice, slice], list[slice], list[slice]]]:
        """Yield for each region where it lies, and the bins of its rows and columns."""
        for image, rows, columns in zip(self._images, self._rows, self._columns, strict=True):
            yield (image, rows.span, columns.span), rows.bins, columns.bins

    def _maxima(self, values: Any, bins: Sequence[slice]) -> Any:
        """Return the largest of `values` (L, A, C) in each bin along L, and 0 for an empty bin: (bins, A, C)."""
        maxima = self.xp.zeros((len(bins), *values.shape[1:]), values.dtype)
        for index, span in enumerate(bins):
            if span.stop > span.start:
                values[span].max(axis=0, out=maxima[index])
        return maxima


def _give_to_first(values: Any, bins: Sequence[slice], maxima: Any, diff: Any, gradient: Any) -> None:
    """Add what `diff` (bins, A, C) has for each bin of `values` (L, A, C) to the gradient of its first maximum."""
    for span, largest, left in zip(bins, maxima, diff.copy(), strict=True):
        for index in range(span.start, span.stop):
            share = left * (values[index] == largest)
            gradient[index] += share
            left -= share


def _sides_of(first: Array, last: Array, num_bins: int, limit: int) -> list[Side]:
    """Return where regions lie along one axis of a map of `limit` pixels.

    The arithmetic is that of the blobs' dtype, as in Caffe: a bin may reach one pixel further than in real numbers.
    """
    dtype = first.dtype
    size = np.maximum(last - first + 1, 1)[:, None] / dtype.type(num_bins)
    numbers = np.arange(num_bins, dtype=dtype)
    starts = to_pixels(np.floor(numbers * size) + first[:, None], limit)
    stops = to_pixels(np.ceil((numbers + 1) * size) + first[:, None], limit)
    sides = []
    for begins, ends in zip(starts.tolist(), stops.tolist(), strict=True):
        bins = [slice(begin - begins[0], end - begins[0]) for begin, end in zip(begins, ends, strict=True)]
        sides.append(Side(slice(begins[0], ends[-1]), bins))
    return sides
