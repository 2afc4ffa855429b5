"""Tests of data/window_crop.py: places worked out by hand; whole windows are compared in test_window_reader.py."""

from __future__ import annotations

import pytest

from dtrain.data.errors import DataError
from dtrain.data.window_crop import CropRule, Landing, place_window


def test_place_window_without_context_fills_the_square() -> None:
    assert place_window((3, 4, 9, 5), 50, 60, CropRule(8), False) == Landing((3, 4, 9, 5), 8, 8, 0, 0)


def test_place_window_with_context_keeps_so_many_pixels_around_it() -> None:
    # 4x4 pixels around (12, 22), to become 8 of 12: 12/8 as large, so 6 pixels and, as Caffe counts, one more.
    landing = place_window((10, 20, 13, 23), 50, 60, CropRule(12, context_pad=2), False)
    assert landing == Landing((9, 19, 15, 25), 12, 12, 0, 0)


def test_place_window_made_square_takes_the_longer_side() -> None:
    # 4 wide, 10 high, centre (22, 15): x from 22 - 5 to 22 + 5.
    assert place_window((20, 10, 23, 19), 50, 60, CropRule(11, is_square=True), False).box == (17, 10, 27, 20)


@pytest.mark.parametrize(("is_flipped", "column"), [(False, 4), (True, 0)])
def test_place_window_at_the_edge_pads_there_or_mirrored(is_flipped: bool, column: int) -> None:
    # The whole square is x -4 … 6, y -4 … 6: eleven pixels in eleven, of which four are outside.
    rule = CropRule(11, is_square=True)
    landing = place_window((0, -4, 1, 5), 50, 60, rule, is_flipped)
    assert landing == Landing((0, 0, 6, 6), 7, 7, 4, column)


def test_place_window_rounds_halves_away_from_zero() -> None:
    # 2 pixels around x = 1, 1.5 as large: from -0.5 to 2.5, which become -1 and 3.
    landing = place_window((0, 10, 1, 11), 50, 60, CropRule(6, context_pad=1), False)
    assert landing.box[::2] == (0, 3)
    assert (landing.column, landing.width) == (1, 5)


@pytest.mark.parametrize("context_pad", [4, 5, 100])
def test_crop_rule_of_context_alone_is_refused(context_pad: int) -> None:
    with pytest.raises(
        DataError, match=f"context_pad must be less than half of crop_size 8, got {context_pad}"
    ):
        CropRule(8, context_pad)


@pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, -1, 3, 3), (0, 0, 60, 3), (0, 0, 3, 50)])
def test_place_window_outside_its_image_is_refused_without_context(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(DataError, match=r"window must lie in its image of 60x50, got x1 "):
        place_window(box, 50, 60, CropRule(8), False)


def test_place_window_that_does_not_touch_its_image_is_refused() -> None:
    with pytest.raises(DataError, match="window must lie in its image of 60x50, got x1 70 y1 3 x2 75 y2 8"):
        place_window((70, 3, 75, 8), 50, 60, CropRule(8, is_square=True), False)


def test_place_window_of_which_nothing_remains_is_refused() -> None:
    # One column of the image in a window of 41: in a square of 8 that is a fifth of a pixel.
    with pytest.raises(DataError, match="must keep a pixel of 8x8, got none; drop it"):
        place_window((59, 5, 98, 44), 50, 60, CropRule(8, is_square=True), False)
