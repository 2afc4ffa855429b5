"""Where a window is cut out of its image, and where it lands in the square that the net sees.

Between a window file and its reader. Follows caffe's window_data_layer.cpp, rounding for rounding, in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dtrain.data.errors import DataError

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class CropRule:
    """How windows become squares of crop_size pixels.

    context_pad: pixels of context on each side of the window, counted in the square. is_square: the window grows to
    a square before, else it is warped. Raises DataError when context leaves nothing of the window.
    """

    crop_size: int
    context_pad: int = 0
    is_square: bool = False

    def __post_init__(self) -> None:
        if 2 * self.context_pad >= self.crop_size:
            raise DataError(
                f"context_pad must be less than half of crop_size {self.crop_size}, got {self.context_pad}"
            )


class Landing(NamedTuple):
    """The part of the image that is cut out, box, both ends inside; its height and width once resized; and the row
    and column of the square where it begins. Around it the square is 0.
    """

    box: Box
    height: int
    width: int
    row: int
    column: int


def place_window(box: Box, image_height: int, image_width: int, rule: CropRule, is_flipped: bool) -> Landing:
    """Return where the window `box` (x1, y1, x2, y2) lands; with is_flipped its padding is mirrored too.

    Raises DataError when the part to cut out is not in the image or would vanish.
    """
    crop_size = rule.crop_size
    if rule.context_pad or rule.is_square:
        landing = _place_with_context(box, image_height, image_width, rule, is_flipped)
    else:
        landing = Landing(box, crop_size, crop_size, 0, 0)
    x1, y1, x2, y2 = landing.box
    if not (0 <= x1 <= x2 < image_width and 0 <= y1 <= y2 < image_height):
        raise DataError(f"window must lie in its image of {image_width}x{image_height}, got {_show(box)}")
    if landing.height < 1 or landing.width < 1:
        raise DataError(
            f"window {_show(box)} must keep a pixel of {crop_size}x{crop_size}, got none; drop it"
        )
    return landing


def _place_with_context(
    box: Box, image_height: int, image_width: int, rule: CropRule, is_flipped: bool
) -> Landing:
    x1, y1, x2, y2 = _expand(box, rule)
    # The part outside the image becomes padding.
    pad_x1, pad_y1 = max(0, -x1), max(0, -y1)
    pad_x2, pad_y2 = max(0, x2 - image_width + 1), max(0, y2 - image_height + 1)
    inside = x1 + pad_x1, y1 + pad_y1, x2 - pad_x2, y2 - pad_y2
    crop_size = rule.crop_size
    scale_x = np.float32(crop_size) / np.float32(x2 - x1 + 1)
    scale_y = np.float32(crop_size) / np.float32(y2 - y1 + 1)
    width = _round(np.float32(inside[2] - inside[0] + 1) * scale_x)
    height = _round(np.float32(inside[3] - inside[1] + 1) * scale_y)
    column = _round(np.float32(pad_x2 if is_flipped else pad_x1) * scale_x)
    row = _round(np.float32(pad_y1) * scale_y)
    # Rounding may have made it a pixel too long.
    return Landing(inside, min(height, crop_size - row), min(width, crop_size - column), row, column)


def _expand(box: Box, rule: CropRule) -> Box:
    """Return the box, made square if it must be, with so much around it that context_pad remains when resized."""
    x1, y1, x2, y2 = box
    scale = np.float32(rule.crop_size) / np.float32(rule.crop_size - 2 * rule.context_pad)
    half_height, half_width = np.float32(y2 - y1 + 1) / np.float32(2), np.float32(x2 - x1 + 1) / np.float32(2)
    center_x, center_y = np.float32(x1) + half_width, np.float32(y1) + half_height
    if rule.is_square:
        half_height = half_width = max(half_height, half_width)
    return (
        _round(center_x - half_width * scale),
        _round(center_y - half_height * scale),
        _round(center_x + half_width * scale),
        _round(center_y + half_height * scale),
    )


def _round(value: np.float32) -> int:
    """Return the nearest whole number, halves away from 0, as C's round does."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))


def _show(box: Box) -> str:
    return "x1 {} y1 {} x2 {} y2 {}".format(*box)
