"""Records what OpenCV makes of small images, in opencv.npz beside this file, which the tests of data/ compare with.

Run by hand, in an environment of its own: opencv-python-headless 4.10.0.84, pillow, numpy. Caffe reads images by
these functions of OpenCV; 4.5.5 and 5.0.0 give the same bits.

file_<name>: an image file. stored_<name>, gray_<name>, color_<name>: what imdecode makes of it with
IMREAD_UNCHANGED, IMREAD_GRAYSCALE and IMREAD_COLOR. resize_<i>_<h>x<w>: resize of image_<i> with INTER_LINEAR.
window_<mode>_<context>_<plain or flipped>: the windows window_boxes of window_image as WindowData cuts them out,
written after window_data_layer.cpp with calls of OpenCV; mean_…: the same with (pixel - window_mean) / 2.
"""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 11, 14
CROP_SIZE = 9
FLAGS = {"stored": cv2.IMREAD_UNCHANGED, "gray": cv2.IMREAD_GRAYSCALE, "color": cv2.IMREAD_COLOR}
SIZES = [(9, 20), (31, 17), (4, 3), (1, 1), (22, 28), (6, 7), (11, 14), (40, 50), (11, 20)]
# x1 y1 x2 y2: inside, at each edge, the whole image, a single pixel, narrow, tall.
BOXES = [
    (3, 2, 8, 7),
    (0, 0, 5, 9),
    (9, 4, 19, 15),
    (0, 0, 19, 15),
    (7, 7, 7, 7),
    (2, 8, 18, 9),
    (12, 0, 13, 15),
]
random = np.random.default_rng(5)


def draw(height: int, width: int, num_channels: int) -> np.ndarray:
    """Return waves with noise, uint8 (height, width, C)."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(x / 3 + k) + 60 * np.cos(y / 2 - k) for k in range(num_channels)]
    noise = random.normal(0, 12, (height, width, num_channels))
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def png_of_16_bits(pixels: np.ndarray, color_type: int) -> bytes:
    """Return a PNG that Pillow can't write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in chunks)


def write(image: Image.Image, kind: str, orientation: int = 0, **options: object) -> bytes:
    """Return an image file."""
    file = io.BytesIO()
    if orientation:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    image.save(file, kind, **options)
    return file.getvalue()


def make_files() -> dict[str, bytes]:
    """Return files of all formats and modes."""
    rgb, gray = Image.fromarray(draw(HEIGHT, WIDTH, 3)), Image.fromarray(draw(HEIGHT, WIDTH, 1)[..., 0])
    rgba, la = Image.fromarray(draw(HEIGHT, WIDTH, 4), "RGBA"), Image.fromarray(draw(HEIGHT, WIDTH, 2), "LA")
    palette, cmyk = rgb.quantize(17), Image.fromarray(draw(HEIGHT, WIDTH, 4), "CMYK")
    first = tuple(map(int, np.asarray(rgb)[0, 0]))
    files = {
        "rgb.png": write(rgb, "PNG"),
        "gray.png": write(gray, "PNG"),
        "rgba.png": write(rgba, "PNG"),
        "la.png": write(la, "PNG"),
        "palette.png": write(palette, "PNG"),
        "palette_transparent.png": write(palette, "PNG", transparency=3),
        "bit.png": write(gray.convert("1"), "PNG"),
        "rgb_transparent.png": write(rgb, "PNG", transparency=first),
        "gray_transparent.png": write(gray, "PNG", transparency=200),
        "gray_16.png": png_of_16_bits(random.integers(0, 65536, (HEIGHT, WIDTH)), 0),
        "rgb_16.png": png_of_16_bits(random.integers(0, 65536, (HEIGHT, WIDTH, 3)), 2),
        "turned.png": write(rgb, "PNG", orientation=6),
        "rgb.bmp": write(rgb, "BMP"),
        "gray.bmp": write(gray, "BMP"),
        "palette.bmp": write(palette, "BMP"),
        "rgb.tif": write(rgb, "TIFF", compression="tiff_lzw"),
        "gray.tif": write(gray, "TIFF"),
        "turned.tif": write(rgb, "TIFF", orientation=6),
        "rgb.webp": write(rgb, "WEBP", lossless=True),
        "rgba.webp": write(rgba, "WEBP", lossless=True),
        "rgb.ppm": write(rgb, "PPM"),
        "gray.pgm": write(gray, "PPM"),
        "rgb.jp2": write(rgb, "JPEG2000"),
        "rgb.jpg": write(rgb, "JPEG", quality=90),
        "gray.jpg": write(gray, "JPEG"),
        "full.jpg": write(rgb, "JPEG", subsampling=0),
        "progressive.jpg": write(rgb, "JPEG", progressive=True),
        "cmyk.jpg": write(cmyk, "JPEG", quality=95),
        "plain_rgb.jpg": write(rgb, "JPEG", keep_rgb=True),
        "turned_gray.jpg": write(gray, "JPEG", orientation=8),
    }
    return files | {f"turned_{o}.jpg": write(rgb, "JPEG", orientation=o) for o in range(1, 9)}


def cut_window(image: np.ndarray, box: tuple, mode: str, context: int, flip: bool, mean: np.ndarray | None):
    """Return a window as a batch of WindowData holds it: (3, CROP_SIZE, CROP_SIZE)."""
    f = np.float32
    x1, y1, x2, y2 = box
    size, pad_w, pad_h = [CROP_SIZE, CROP_SIZE], 0, 0
    if context or mode == "square":
        scale = f(CROP_SIZE) / f(CROP_SIZE - 2 * context)
        half_h, half_w = f(f(y2 - y1 + 1) / 2.0), f(f(x2 - x1 + 1) / 2.0)
        x, y = f(x1) + half_w, f(y1) + half_h
        if mode == "square":
            half_h = half_w = max(half_h, half_w)

        def c_round(value: np.float32) -> int:
            return int(np.sign(value) * np.floor(np.abs(np.float64(value)) + 0.5))

        x1, x2 = c_round(x - half_w * scale), c_round(x + half_w * scale)
        y1, y2 = c_round(y - half_h * scale), c_round(y + half_h * scale)
        scale_x, scale_y = f(CROP_SIZE) / f(x2 - x1 + 1), f(CROP_SIZE) / f(y2 - y1 + 1)
        left, top = max(0, -x1), max(0, -y1)
        right, bottom = max(0, x2 - image.shape[1] + 1), max(0, y2 - image.shape[0] + 1)
        x1, y1, x2, y2 = x1 + left, y1 + top, x2 - right, y2 - bottom
        size = [c_round(f(x2 - x1 + 1) * scale_x), c_round(f(y2 - y1 + 1) * scale_y)]
        pad_h, pad_w = c_round(f(top) * scale_y), c_round(f(right if flip else left) * scale_x)
        size = [min(size[0], CROP_SIZE - pad_w), min(size[1], CROP_SIZE - pad_h)]
    part = cv2.resize(image[y1 : y2 + 1, x1 : x2 + 1], size, interpolation=cv2.INTER_LINEAR)
    part = cv2.flip(part, 1) if flip else part
    square = np.zeros((3, CROP_SIZE, CROP_SIZE), np.uint8 if mean is None else np.float32)
    for c in range(3):
        for h in range(size[1]):
            for w in range(size[0]):
                value = part[h, w, c]
                if mean is not None:
                    offset = (mean.shape[2] - CROP_SIZE) // 2
                    value = (f(value) - mean[c, h + offset + pad_h, w + offset + pad_w]) * f(0.5)
                square[c, h + pad_h, w + pad_w] = value
    return square


def main() -> None:
    """Write opencv.npz."""
    arrays: dict[str, np.ndarray] = {}
    for name, data in make_files().items():
        arrays[f"file_{name}"] = np.frombuffer(data, np.uint8)
        for kind, flag in FLAGS.items():
            arrays[f"{kind}_{name}"] = cv2.imdecode(arrays[f"file_{name}"], flag)
    for i, shape in enumerate([(11, 14, 3), (7, 5, 1), (1, 9, 3), (9, 1, 3), (97, 33, 3)]):
        image = arrays[f"image_{i}"] = draw(*shape)
        for height, width in SIZES:
            resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            arrays[f"resize_{i}_{height}x{width}"] = resized.reshape(height, width, -1)
    image = arrays["window_image"] = draw(16, 20, 3)
    mean = arrays["window_mean"] = random.uniform(90, 130, (3, 14, 12)).astype(np.float32)
    arrays["window_boxes"] = np.array(BOXES)
    for mode, context in (("warp", 0), ("warp", 2), ("square", 0), ("square", 3)):
        for flip, word in ((False, "plain"), (True, "flipped")):
            squares = [cut_window(image, box, mode, context, flip, None) for box in BOXES]
            arrays[f"window_{mode}_{context}_{word}"] = np.stack(squares)
    for flip, word in ((False, "plain"), (True, "flipped")):
        squares = [cut_window(image, box, "square", 3, flip, mean) for box in BOXES]
        arrays[f"mean_square_3_{word}"] = np.stack(squares)
    np.savez_compressed(Path(__file__).with_name("opencv.npz"), **arrays)


if __name__ == "__main__":
    main()
