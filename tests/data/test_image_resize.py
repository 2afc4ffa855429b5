"""Tests of data/image_resize.py, against what OpenCV computes (recorded/record_opencv.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.image_resize import ResizedPicture, resize_bilinear
from dtrain.data.picture import Picture

with np.load(Path(__file__).parent / "recorded/opencv.npz") as file:
    RECORDED = dict(file)


class PlainPicture(Picture):
    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.shape = pixels.shape  # type: ignore[assignment]
        self._pixels = pixels

    def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
        self.flaw = "a flaw"
        return self._pixels


@pytest.mark.parametrize("name", [key for key in RECORDED if key.startswith("resize_")])
def test_resize_bilinear_is_opencv_s_to_the_bit(name: str) -> None:
    _, number, _ = name.split("_")
    expected = RECORDED[name]
    assert np.array_equal(resize_bilinear(RECORDED[f"image_{number}"], *expected.shape[:2]), expected)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (100, 100)])
def test_resize_bilinear_of_one_colour_keeps_it(size: tuple[int, int]) -> None:
    image = np.broadcast_to(np.array([0, 127, 255], np.uint8), (17, 23, 3))
    assert np.array_equal(resize_bilinear(image, *size), np.broadcast_to(image[0, 0], (*size, 3)))


def test_resize_bilinear_to_half_is_the_mean_of_four() -> None:
    image = np.random.default_rng(2).integers(0, 256, (12, 18, 3), np.uint8)
    sums = image.astype(int).reshape(6, 2, 9, 2, 3).sum(axis=(1, 3))
    assert np.array_equal(resize_bilinear(image, 6, 9), (sums + 2) // 4)


def test_resize_bilinear_to_the_same_size_returns_the_image() -> None:
    image = np.zeros((4, 5, 1), np.uint8)
    assert resize_bilinear(image, 4, 5) is image


def test_resized_picture_resizes_when_its_pixels_are_asked_for() -> None:
    expected = RECORDED["resize_0_9x20"].transpose(2, 0, 1)
    picture = ResizedPicture(PlainPicture(RECORDED["image_0"].transpose(2, 0, 1)), 9, 20)
    assert picture.shape == (3, 9, 20)
    assert not picture.flaw
    assert np.array_equal(picture.pixels(2), expected)
    assert picture.flaw == "a flaw"
