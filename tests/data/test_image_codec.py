"""Tests of data/image_codec.py, against what OpenCV makes of the same files (recorded/record_opencv.py)."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from dtrain.data.errors import DataError
from dtrain.data.image_codec import open_image
from dtrain.data.picture import Colors

with np.load(Path(__file__).parent / "recorded/opencv.npz") as file:
    RECORDED = dict(file)
FILES = {
    key.removeprefix("file_"): array.tobytes() for key, array in RECORDED.items() if key.startswith("file_")
}


def decode(
    data: bytes | memoryview, colors: Colors = Colors.COLOR, num_rows: int | None = None
) -> NDArray[np.uint8]:
    """Return (H, W, C)."""
    picture = open_image(data, colors)
    pixels = picture.pixels(num_rows)
    if num_rows is None:
        assert pixels.shape == picture.shape
    return pixels.transpose(1, 2, 0)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("colors", Colors)
@pytest.mark.parametrize("name", [name for name in FILES if "_16" not in name])
def test_pixels_of_a_file_are_opencv_s(name: str, colors: Colors) -> None:
    expected = RECORDED[f"{colors.value}_{name}"]
    assert np.array_equal(decode(FILES[name], colors), expected.reshape(*expected.shape[:2], -1))


def test_recorded_files_are_of_all_formats() -> None:
    assert {name.rpartition(".")[2] for name in FILES} == {
        "png",
        "bmp",
        "tif",
        "webp",
        "ppm",
        "pgm",
        "jp2",
        "jpg",
    }
    assert len(FILES) == 38


@pytest.mark.parametrize(
    ("name", "colors", "tolerance"),
    [
        ("gray_16.png", Colors.GRAY, 0),
        ("gray_16.png", Colors.COLOR, 0),
        ("rgb_16.png", Colors.COLOR, 0),
        ("rgb_16.png", Colors.GRAY, 1),  # OpenCV weighs 16 bits and takes 8 of them afterwards
    ],
)
def test_pixels_of_16_bits_are_the_upper_8(name: str, colors: Colors, tolerance: int) -> None:
    expected = RECORDED[f"{colors.value}_{name}"].astype(int)
    difference = decode(FILES[name], colors) - expected.reshape(*expected.shape[:2], -1)
    assert abs(difference).max() <= tolerance


@pytest.mark.parametrize("name", ["gray_16.png", "rgb_16.png"])
def test_picture_of_16_bits_as_stored_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="pixels must be of 8 bits, got 16"):
        open_image(FILES[name], Colors.STORED)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize("colors", [Colors.COLOR, Colors.GRAY])
def test_first_rows_of_a_jpeg_are_those_of_the_whole(subsampling: str, colors: Colors) -> None:
    image = np.random.default_rng(1).integers(0, 256, (75, 21, 3), np.uint8)
    data = simplejpeg.encode_jpeg(image, 80, colorsubsampling=subsampling)
    whole = simplejpeg.decode_jpeg(data, "BGR" if colors is Colors.COLOR else "GRAY")
    for num_rows in range(1, 76):
        picture = open_image(data, colors)
        pixels = picture.pixels(num_rows).transpose(1, 2, 0)
        assert num_rows <= len(pixels) <= min(num_rows + 2, 75)
        assert np.array_equal(pixels[:num_rows], whole[:num_rows])
        assert picture.shape == (whole.shape[2], 75, 21)
        assert not picture.flaw


@pytest.mark.parametrize("name", ["progressive.jpg", "turned_6.jpg", "rgb.png"])
def test_first_rows_of_what_can_not_be_cut_are_right_too(name: str) -> None:
    assert np.array_equal(decode(FILES[name], num_rows=3)[:3], RECORDED[f"color_{name}"][:3])


def test_open_image_takes_views_of_bytes() -> None:
    data = b"\0" + FILES["rgb.jpg"] + b"\0"
    assert np.array_equal(decode(memoryview(data)[1:-1]), RECORDED["color_rgb.jpg"])


@pytest.mark.parametrize("num_rows", [None, 5])
def test_pixels_of_a_truncated_jpeg_are_refused(num_rows: int | None) -> None:
    image = np.random.default_rng(1).integers(0, 256, (75, 50, 3), np.uint8)
    data = simplejpeg.encode_jpeg(image, 80)
    for end in (-2, -1000, len(data) * 2 // 3):
        with pytest.raises(DataError, match="JPEG must be whole, got: Premature end of JPEG file"):
            decode(data[:end], num_rows=num_rows)


def test_pixels_of_a_jpeg_with_surplus_bytes_are_read_and_the_flaw_is_told() -> None:
    data = FILES["rgb.jpg"]
    picture = open_image(data[:-2] + b"surplus" + data[-2:])
    assert np.array_equal(picture.pixels().transpose(1, 2, 0), RECORDED["color_rgb.jpg"])
    assert picture.flaw.startswith("JPEG is damaged, and read as well as it can be: Corrupt JPEG data")


CMYK = Image.new("CMYK", (3, 2))
GRAY_ALPHA = Image.new("LA", (3, 2))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "image must be a JPEG, PNG, BMP, TIFF, WebP, JPEG 2000 or PNM file, got other bytes"),
        (b"GIF89a", "image must be a JPEG, PNG.*, got other bytes"),
        (save(Image.new("L", (3, 2)), "GIF"), "image must be a JPEG, PNG.*, got other bytes"),
        (FILES["rgb.jpg"][:100], "JPEG must be whole, got one that ends before its pixels"),
        (b"\xff\xd8\xff\xda\x00\x02\x00", "JPEG must say its size before its pixels, got none"),
        (FILES["rgb.png"][:100], "PNG must be whole, got: "),
        (FILES["rgb.bmp"][:100], "BMP must be whole, got: "),
        (save(CMYK, "TIFF"), "image must be grey, .* got a TIFF of mode CMYK; convert it"),
        (save(GRAY_ALPHA, "TIFF"), "TIFF must be without transparency; convert it to PNG"),
    ],
)
def test_image_that_can_not_be_read_says_why(data: bytes, problem: str) -> None:
    with pytest.raises(DataError, match=f"^{problem}"):
        decode(data)


@pytest.mark.parametrize(("name", "package"), [("rgb.jpg", "simplejpeg"), ("rgb.png", "PIL")])
def test_image_without_its_library_names_the_extra(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=r"which is not installed: pip install 'dtrain\[images\]'"):
        decode(FILES[name])
