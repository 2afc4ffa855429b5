"""Resizes images by bilinear interpolation, to the bit as OpenCV does.

Between the codec and the transformer, where ImageData asks for new_height and new_width, and behind the windows
of WindowData. Follows cv::resize with INTER_LINEAR on 8 bits: pixel centres at halves, edges repeated, no
smoothing when shrinking, weights rounded to 1/2048, and its roundings between the two passes.

H W C: height, width, channels of the image, h w those of the result.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtrain.data.picture import Picture

_WEIGHT_ONE = np.float32(2048)
# What OpenCV shifts away: after the first pass, after the second, and with rounding at the end.
_FIRST_SHIFT, _SECOND_SHIFT, _LAST_SHIFT = 4, 16, 2


class _Taps(NamedTuple):
    """Which two pixels each result is made of, and by which weights of 2048."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    first_weights: NDArray[np.int32]
    second_weights: NDArray[np.int32]


def resize_bilinear(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return `image`, uint8 (H, W, C), as uint8 (height, width, C); the same array if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    columns = _column_taps(image.shape[1], width, image.shape[2])
    rows = _row_taps(image.shape[0], height)
    first, second = rows.first, rows.second
    if 2 * height < len(image):  # rows between are not looked at
        needed, places = np.unique(np.stack([first, second]), return_inverse=True)
        image = image[needed]
        first, second = places.reshape(2, -1)
    wide = _weigh_columns(image, columns)
    result = _weigh_rows(wide, first, rows.first_weights)
    result += _weigh_rows(wide, second, rows.second_weights)
    result += 1 << (_LAST_SHIFT - 1)
    result >>= _LAST_SHIFT
    return result.astype(np.uint8).reshape(height, width, -1)


class ResizedPicture(Picture):
    """A picture brought to `height` x `width`."""

    def __init__(self, picture: Picture, height: int, width: int) -> None:
        self._picture = picture
        self.shape = (picture.shape[0], height, width)

    def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
        """Return all pixels (C, h, w)."""
        whole = np.ascontiguousarray(self._picture.pixels().transpose(1, 2, 0))
        self.flaw = self._picture.flaw
        return resize_bilinear(whole, *self.shape[1:]).transpose(2, 0, 1)


def _weigh_columns(image: NDArray[np.uint8], taps: _Taps) -> NDArray[np.int32]:
    """Return the first pass: (H, w·C)."""
    wide = image.take(taps.first, axis=1).reshape(len(image), -1).astype(np.int32)
    wide *= taps.first_weights
    right = image.take(taps.second, axis=1).reshape(len(image), -1).astype(np.int32)
    right *= taps.second_weights
    wide += right
    wide >>= _FIRST_SHIFT
    return wide


def _weigh_rows(
    wide: NDArray[np.int32], rows: NDArray[np.intp], weights: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return one summand of the second pass: (h, w·C)."""
    weighed = wide.take(rows, axis=0)
    weighed *= weights[:, np.newaxis]
    weighed >>= _SECOND_SHIFT
    return weighed


@lru_cache(maxsize=256)
def _column_taps(length: int, new_length: int, num_channels: int) -> _Taps:
    """Return the taps along a row; at its ends the outermost pixel has all the weight."""
    first, fractions = _places(length, new_length)
    fractions[(first < 0) | (first >= length - 1)] = 0
    taps = _make_taps(first, fractions, length)
    weights = (np.repeat(part, num_channels) for part in (taps.first_weights, taps.second_weights))
    return _Taps(taps.first, taps.second, *weights)


@lru_cache(maxsize=256)
def _row_taps(length: int, new_length: int) -> _Taps:
    """Return the taps along a column; at its ends both are the outermost pixel."""
    return _make_taps(*_places(length, new_length), length)


def _places(length: int, new_length: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the pixel before each place of the result, and how far behind it the place is, 0 … 1."""
    places = ((np.arange(new_length) + 0.5) * (length / new_length) - 0.5).astype(np.float32)
    first = np.floor(places).astype(np.intp)
    return first, places - first.astype(np.float32)


def _make_taps(first: NDArray[np.intp], fractions: NDArray[np.float32], length: int) -> _Taps:
    return _Taps(
        np.clip(first, 0, length - 1),
        np.clip(first + 1, 0, length - 1),
        np.rint((1 - fractions) * _WEIGHT_ONE).astype(np.int32),
        np.rint(fractions * _WEIGHT_ONE).astype(np.int32),
    )
