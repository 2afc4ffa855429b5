"""Decodes compressed images: JPEG by simplejpeg, the other formats by Pillow; the one module that imports them.

Behind the record sources and image lists, before the transformer. Gives what Caffe gets of OpenCV's
imread and imdecode, bit for bit: blue before green before red, one grey channel by the formula of each format,
images turned as Exif says unless they are taken as stored. Both libraries are optional: dtrain[images].
"""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.data.jpeg_header import SIGNATURE, Buffer, cut_rows, read_jpeg_header
from dtrain.data.picture import Colors, Picture

# Pillow knows many more formats, which Caffe does not read.
_FORMATS = ("PNG", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000")
_WITH_ALPHA = ("PNG", "WEBP")
_GRAY_MODES = ("1", "L", "LA")
_COLOR_MODES = ("P", "RGB", "RGBA")
_PNG_DEPTH_AT = 24
_EXIF_ORIENTATION = 0x0112

# Weights of blue, green and red for grey, what is added for rounding, and the shift. libpng cuts off.
_PNG_GRAY = (3736, 19235, 9797, 0, 15)
_OPENCV_GRAY = (1868, 9617, 4899, 8192, 14)

_TRUNCATED = "Premature end"
_SURPLUS = "extraneous bytes before marker"


def open_image(data: Buffer, colors: Colors = Colors.COLOR) -> Picture:
    """Return the picture in `data`, the bytes of an image file.

    Formats: JPEG, PNG, BMP, TIFF, WebP, JPEG 2000, PNM. Of 16 bits a channel the upper 8 are taken, but not
    where an image is taken as stored. Raises DataError when `data` is none of these, damaged or of pixels that
    have no meaning as grey or colour, or when the library is not installed.
    """
    if data[: len(SIGNATURE)] == SIGNATURE:
        return _JpegPicture(data, colors)
    return _PillowPicture(data, colors)


class _JpegPicture(Picture):
    def __init__(self, data: Buffer, colors: Colors) -> None:
        self._data = data
        self._header = header = read_jpeg_header(data)
        is_gray = colors is Colors.GRAY or (colors is Colors.STORED and header.num_components == 1)
        self._space = "GRAY" if is_gray else "BGR"
        self._orientation = 1 if colors is Colors.STORED else header.orientation
        size = (header.height, header.width)
        self.shape = (1 if is_gray else 3, *(size if self._orientation < 5 else size[::-1]))

    def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
        height, data = self._header.height, self._data
        if num_rows is not None and self._orientation == 1:
            data, height = cut_rows(data, self._header, num_rows)
        pixels = np.empty((height, self._header.width, self.shape[0]), np.uint8)
        self.flaw = _decode_jpeg(data, self._space, pixels, is_cut=data is not self._data)
        return _turn(pixels, self._orientation).transpose(2, 0, 1)


def _decode_jpeg(data: Buffer, space: str, pixels: NDArray[np.uint8], is_cut: bool) -> str:
    """Fill `pixels` and return what was mended; missing pixels are no such thing."""
    try:
        import simplejpeg
    except ImportError:
        raise _missing("JPEG", "simplejpeg") from None
    try:
        simplejpeg.decode_jpeg(data, space, buffer=pixels)
    except ValueError as error:  # of the first damage; the pixels are there nonetheless, if it can be mended
        problem = str(error)
        if is_cut and _SURPLUS in problem:
            return ""  # the rows that were cut off
        if problem.startswith(_TRUNCATED):
            raise DataError(f"JPEG must be whole, got: {problem}") from None
        try:
            simplejpeg.decode_jpeg(data, space, buffer=pixels, strict=False)
        except ValueError:
            raise DataError(f"JPEG must be one that can be decoded, got: {problem}") from None
        return f"JPEG is damaged, and read as well as it can be: {problem}"
    return ""


class _PillowPicture(Picture):
    def __init__(self, data: Buffer, colors: Colors) -> None:
        try:
            from PIL import Image
        except ImportError:
            raise _missing("PNG, BMP, TIFF, WebP, JPEG 2000 and PNM", "pillow") from None
        try:
            self._image = Image.open(BytesIO(data), formats=_FORMATS)
        except Exception as error:  # Pillow's formats raise whatever they like
            kinds = "JPEG, PNG, BMP, TIFF, WebP, JPEG 2000 or PNM file"
            got = (
                "other bytes"
                if type(error).__name__ == "UnidentifiedImageError"
                else f"a damaged one: {error}"
            )
            raise DataError(f"image must be a {kinds}, got {got}") from None
        self._is_png = self._image.format == "PNG"
        self._colors = colors
        # Pillow before 11 says I where later ones say I;16.
        self._is_deep_gray = self._image.mode.startswith("I;16") or (self._is_png and self._image.mode == "I")
        self._check_mode(self._is_deep_gray or (self._is_png and data[_PNG_DEPTH_AT] == 16))
        if self._image.format == "TIFF":
            self._load()  # Pillow turns it, and before release 11 tells its size only then
        may_turn = self._is_png and colors is not Colors.STORED and b"eXIf" in bytes(data)
        self._orientation = self._read_orientation() if may_turn else 1
        size = self._image.size[::-1]
        self.shape = (self._num_channels(), *(size if self._orientation < 5 else size[::-1]))

    def pixels(self, num_rows: int | None = None) -> NDArray[np.uint8]:
        self._load()
        return _turn(self._convert(), self._orientation).transpose(2, 0, 1)

    def _load(self) -> None:
        try:
            self._image.load()
        except Exception as error:
            raise DataError(f"{self._image.format} must be whole, got: {error}") from None

    def _check_mode(self, has_16_bits: bool) -> None:
        image = self._image
        kind = f"{image.format} of mode {image.mode}"
        if image.mode not in (*_GRAY_MODES, *_COLOR_MODES) and not self._is_deep_gray:
            raise DataError(
                f"image must be grey, of a palette or of red, green and blue, got a {kind}; convert it"
            )
        if image.format == "TIFF" and image.mode in ("LA", "RGBA"):
            raise DataError("TIFF must be without transparency; convert it to PNG")
        if self._colors is Colors.STORED and has_16_bits:
            raise DataError(
                "pixels must be of 8 bits, got 16; convert the image, or force_color or force_gray"
            )

    def _read_orientation(self) -> int:
        try:
            value = self._image.getexif().get(_EXIF_ORIENTATION, 1)
        except Exception as error:
            raise DataError(f"PNG must be whole, got: {error}") from None
        return value if value in range(1, 9) else 1

    def _num_channels(self) -> int:
        if self._colors is not Colors.STORED:
            return 3 if self._colors is Colors.COLOR else 1
        if self._image.mode in ("1", "L"):
            return 1
        has_alpha = self._image.mode in ("LA", "RGBA") or "transparency" in self._image.info
        return 4 if has_alpha and self._image.format in _WITH_ALPHA else 3

    def _convert(self) -> NDArray[np.uint8]:
        """Return the pixels as (H, W, C)."""
        image, num_channels = self._image, self.shape[0]
        if self._is_deep_gray:
            gray = (np.asarray(image) >> 8).astype(np.uint8)[..., np.newaxis]
            return gray if num_channels == 1 else gray.repeat(3, axis=2)
        if num_channels == 4:
            return np.asarray(image.convert("RGBA"))[..., [2, 1, 0, 3]]
        if num_channels == 1 and image.mode in _GRAY_MODES:
            return np.asarray(image.convert("L"))[..., np.newaxis]
        colors = np.asarray(image.convert("RGB"))[..., ::-1]
        return colors if num_channels == 3 else _to_gray(colors, self._is_png)


def _to_gray(colors: NDArray[np.uint8], is_png: bool) -> NDArray[np.uint8]:
    """Return (H, W, 1) of (H, W, blue green red), in the fixed point arithmetic of libpng or OpenCV."""
    *weights, half, shift = _PNG_GRAY if is_png else _OPENCV_GRAY
    gray = colors @ np.array(weights, np.int32)
    return ((gray + half) >> shift).astype(np.uint8)[..., np.newaxis]


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return (H, W, C) so that it stands upright, as Exif numbers the eight ways of holding a camera."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels


def _missing(formats: str, package: str) -> DataError:
    return DataError(f"{formats} files need {package}, which is not installed: pip install 'dtrain[images]'")
