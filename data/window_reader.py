"""Reads batches of windows, cut out of images and warped to squares, for training detectors as R-CNN does.

The batch reader of the WindowData layer. Follows caffe's window_data_layer.cpp, which draws windows with
replacement: background first, then foreground, in each batch. Where Caffe draws from a generator, here the window
at a position of the stream is a function of (seed, position).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.batch_reader import BatchReader
from dtrain.data.errors import DataError
from dtrain.data.hash64 import Purpose, draw_below, hash64
from dtrain.data.image_batch import run_named
from dtrain.data.image_codec import open_image
from dtrain.data.image_list import read_file
from dtrain.data.image_resize import resize_bilinear
from dtrain.data.mean_file import read_mean_file
from dtrain.data.picture import Picture
from dtrain.data.transformer import TransformSpec, normalise
from dtrain.data.window_crop import CropRule, Landing, place_window
from dtrain.data.window_file import WindowFile
from dtrain.data.workers import Workers

log = logging.getLogger(__name__)

_NUM_CHANNELS = 3


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """How the windows of a file are drawn and read.

    folder: what is put before each image's path, as it stands. fg_fraction: the share of foreground windows in a
    batch, rounded down. cache_images: read all files once, and keep them, compressed, in memory.
    """

    folder: str = ""
    fg_fraction: float = 0.25
    cache_images: bool = False


class WindowReader(BatchReader):
    """Read batches of windows (N, 3, crop_size, crop_size) and their classes (N,), 0 for background.

    num_records: the windows there are, as a measure of epochs; windows are drawn, so that some come twice. Of N
    windows the last floor(N·fg_fraction) are foreground. What is outside the image is 0 after the mean is taken off.
    So ranks with batch N read together what one rank reads with a multiple of N, if N·fg_fraction is whole.

    Raises DataError when the mean does not fit, or an image that is to be kept can't be read.
    """

    def __init__(
        self,
        windows: WindowFile,
        spec: WindowSpec,
        rule: CropRule,
        transform: TransformSpec,
        workers: Workers | None = None,
        seed: int = 0,
    ) -> None:
        self._windows = windows
        self._spec = spec
        self._rule = rule
        self._transform = transform
        self._workers = workers or Workers()
        self._seed = seed
        self._mean = _load_mean(transform, rule.crop_size)
        self.num_records = max(len(windows), 1)
        self.shapes = ((_NUM_CHANNELS, rule.crop_size, rule.crop_size), ())
        self._cache: list[bytes] = []
        if spec.cache_images:
            self._cache = [read_file(spec.folder + path) for path in windows.image_paths]

    def reseed(self, seed: int) -> None:
        """Draw windows and flips from `seed` from now on."""
        self._seed = seed

    def count_foreground(self, batch_size: int) -> int:
        """Return how many windows of a batch are foreground: floor(batch_size·fg_fraction), in float32 as in Caffe.

        Raises DataError when the file has none of a kind of which a batch needs some.
        """
        num_foreground = int(np.float32(batch_size) * np.float32(self._spec.fg_fraction))
        for kind, numbers, count in (
            ("foreground", self._windows.foreground, num_foreground),
            ("background", self._windows.background, batch_size - num_foreground),
        ):
            if count and not len(numbers):
                raise DataError(
                    f"{self._windows.path}: must have {kind} windows, {count} for each batch, got none"
                )
        return num_foreground

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch` with the windows at `positions`, int64 (N,), background first.

        Raises DataError with the line of a window whose image can't be read or does not hold it.
        """
        batch.epochs[:] = positions // self.num_records
        batch.indices[:] = self._draw_windows(positions)
        batch.labels[:] = self._windows.labels[batch.indices]
        flips = np.zeros(len(positions), np.bool_)
        if self._transform.mirror:
            flips = draw_below(hash64(self._seed, Purpose.MIRROR, 0, positions), 2) == 1
        numbers, is_flipped = batch.indices.tolist(), flips.tolist()

        def fill(item: int) -> None:
            self._read_window(numbers[item], is_flipped[item], batch.data[item])

        def name_item(item: int) -> str:
            return self._windows.line(numbers[item])

        run_named(self._workers, fill, len(positions), name_item)

    def name_record(self, index: int) -> str:
        """Return the window's image and line."""
        path = self._windows.image_paths[self._windows.images[index]]
        return f'window of "{path}" at {self._windows.line(index)}'

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def _draw_windows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        bits = hash64(self._seed, Purpose.WINDOW, 0, positions)
        first = len(positions) - self.count_foreground(len(positions))
        drawn = np.empty(len(positions), np.int64)
        kinds = (slice(first), self._windows.background), (slice(first, None), self._windows.foreground)
        for part, numbers in kinds:
            if len(bits[part]):
                drawn[part] = numbers[draw_below(bits[part], len(numbers))]
        return drawn

    def _read_window(self, number: int, is_flipped: bool, out: NDArray[np.float32]) -> None:
        image = int(self._windows.images[number])
        path = self._spec.folder + self._windows.image_paths[image]
        data = self._cache[image] if self._cache else read_file(path)
        try:
            picture = open_image(data)
            x1, y1, x2, y2 = self._windows.boxes[number].tolist()
            landing = place_window((x1, y1, x2, y2), *picture.shape[1:], self._rule, is_flipped)
            cut = _cut(picture, landing)
        except DataError as error:
            raise DataError(f"{path}: {error.problem}") from None
        if picture.flaw:
            log.warning("%s: %s", path, picture.flaw)
        out[...] = 0
        rows = slice(landing.row, landing.row + landing.height)
        columns = slice(landing.column, landing.column + landing.width)
        target = out[:, rows, columns]
        np.copyto(target, np.ascontiguousarray((cut[:, ::-1] if is_flipped else cut).transpose(2, 0, 1)))
        mean = self._mean
        if mean is not None and mean.shape[1] > 1:
            mean = mean[:, rows, columns]
        normalise(target, mean, self._transform.scale)


def _cut(picture: Picture, landing: Landing) -> NDArray[np.uint8]:
    """Return the part of a picture that lands in the square, (height, width, C), resized."""
    x1, y1, x2, y2 = landing.box
    part = picture.pixels(y2 + 1)[:, y1 : y2 + 1, x1 : x2 + 1]
    return resize_bilinear(np.ascontiguousarray(part.transpose(1, 2, 0)), landing.height, landing.width)


def _load_mean(transform: TransformSpec, crop_size: int) -> NDArray[np.float32] | None:
    """Return the mean of a square: (3, crop_size, crop_size) out of a file, (1 or 3, 1, 1) from values, or None."""
    if transform.mean_values:
        if len(transform.mean_values) not in (1, _NUM_CHANNELS):
            raise DataError(
                f"{transform.where}: mean_value must be given once or for each of 3 channels, "
                f"got {len(transform.mean_values)}"
            )
        return np.array(transform.mean_values, np.float32).reshape(-1, 1, 1)
    if not transform.mean_file:
        return None
    mean = read_mean_file(transform.mean_file)
    # Caffe takes one offset, of the width, for both axes.
    offset = (mean.shape[2] - crop_size) // 2
    square = mean[:, offset : offset + crop_size, offset : offset + crop_size] if offset >= 0 else mean[:0]
    if square.shape != (_NUM_CHANNELS, crop_size, crop_size):
        got = "x".join(map(str, mean.shape))
        raise DataError(
            f"{transform.mean_file}: mean image must be of 3 channels and hold, from ((width - crop_size) / 2) on, "
            f"{crop_size}x{crop_size} pixels, got {got}"
        )
    return square
