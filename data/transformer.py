"""Turns images into what the net reads: crop, mirror, mean and scale.

Between records and the loader's batch. Follows caffe's data_transformer.cpp: y = (x - mean)·scale, of a
window of the image, perhaps flipped. Where Caffe draws window and flip from a generator, here they are a pure
function of (seed, epoch, record), the same on any number of ranks and after any restart.

N C H W: images, channels, height, width of the records; the result is N C h w.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.data.hash64 import Purpose, draw_below, hash64
from dtrain.data.mean_file import read_mean_file
from dtrain.data.picture import Colors, Picture
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

_FRACTION_BITS = 32
_SHIFT = np.uint64(_FRACTION_BITS)


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """What a transform_param says.

    scale: factor after the mean is taken off; mirror: flip left and right by a chance of one half;
    crop_size: side of a square window, random in TRAIN, central in TEST, 0: the whole image;
    mean_file: an image of the records' size; mean_values: one for all channels or one for each.
    where: the place of the transform_param, for messages. colors: what compressed images are decoded to.
    """

    scale: float = 1.0
    mirror: bool = False
    crop_size: int = 0
    mean_file: str = ""
    mean_values: tuple[float, ...] = ()
    where: str = "transform_param"
    colors: Colors = Colors.STORED

    @classmethod
    def from_param(
        cls,
        param: caffe_pb2.TransformationParameter,
        where: str = "transform_param",
        may_be_compressed: bool = False,
    ) -> TransformSpec:
        """Take the parameters from the prototxt's message; `where` is its place, such as ``net.prototxt:7``.

        may_be_compressed: False: the images are none that force_color and force_gray could be for; they are
        ignored with a warning, as in Caffe. Raises DataError, a line for each, when parameters exclude one another.
        """
        problems = []
        if param.mean_file and param.mean_value:
            problems.append(f"{where}: mean_file and mean_value must not be set both; take one out")
        if param.force_color and param.force_gray:
            problems.append(f"{where}: force_color and force_gray must not be set both; take one out")
        if problems:
            raise DataError("\n".join(problems))
        colors = Colors.COLOR if param.force_color else Colors.GRAY if param.force_gray else Colors.STORED
        spec = cls(
            param.scale,
            param.mirror,
            param.crop_size,
            param.mean_file,
            tuple(param.mean_value),
            where,
            colors,
        )
        if not may_be_compressed:
            spec.warn_of_colors()
        return spec

    def warn_of_colors(self) -> None:
        """Log that force_color or force_gray has no effect, if one is set."""
        if self.colors is not Colors.STORED:
            log.warning("%s: force_color and force_gray are for compressed images only", self.where)


class Draw(NamedTuple):
    """What is random about an image: where its window is, in 2⁻³² of all places, and whether it is flipped."""

    row: int
    column: int
    is_flipped: bool


class Transformer:
    """Transform images by one TransformSpec, in any number of threads.

    Arguments:
        spec: what to do. train: random windows, else central ones (flips are random in both, as in Caffe).
        seed: any integer, the same on all ranks.
    Raises DataError when the mean file can't be read.
    """

    def __init__(self, spec: TransformSpec, train: bool, seed: int = 0) -> None:
        self.spec = spec
        self.train = train
        self.seed = seed
        self._crops_anywhere = bool(train and spec.crop_size)
        self._is_random = spec.mirror or self._crops_anywhere
        self._mean_values = np.array(spec.mean_values, np.float32).reshape(-1, 1, 1)
        self._mean_image = read_mean_file(spec.mean_file) if spec.mean_file else None
        self._flipped_image = None if self._mean_image is None else self._mean_image[..., ::-1].copy()
        self._output_shapes: dict[tuple[int, ...], tuple[int, int, int]] = {}

    def output_shape(self, record_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Return (C, h, w) for records of (C, H, W): (C, crop_size, crop_size), or the same without a crop.

        Raises DataError, a line for each, when crop or mean don't fit the records.
        """
        shape = self._output_shapes.get(record_shape)
        if shape is None:
            channels, height, width = record_shape
            self._check_shape(channels, height, width)
            crop_size = self.spec.crop_size
            shape = (channels, crop_size or height, crop_size or width)
            self._output_shapes[record_shape] = shape
        return shape

    def draw(self, epochs: NDArray[np.int64], indices: NDArray[np.int64]) -> list[Draw]:
        """Return what is random about each record; epochs, indices: int64 (N,), which one in which epoch."""
        rows, columns, flips = self._draw_all(epochs, indices)
        return list(map(Draw, rows.tolist(), columns.tolist(), flips.tolist()))

    @property
    def mean(self) -> NDArray[np.float32] | None:
        """What is taken off: an image (C, H, W), values (1 or C, 1, 1), or None."""
        if self._mean_image is None and self._mean_values.size:
            return self._mean_values
        return self._mean_image

    def windows(
        self, record_shape: tuple[int, ...], epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> NDArray[np.int32]:
        """Return what transform_batch cuts out: row and column in each record, of (C, H, W), and 1 if it is flipped.

        int32 (N, 3), for who transforms elsewhere; epochs, indices: as for `draw`.
        """
        _, height, width = self.output_shape(record_shape)
        spans = record_shape[1] - height, record_shape[2] - width
        *fractions, flips = self._draw_all(epochs, indices)
        windows = np.empty((len(indices), 3), np.int32)
        for axis, (fraction, span) in enumerate(zip(fractions, spans, strict=True)):
            windows[:, axis] = fraction * np.uint64(span + 1) >> _SHIFT if self._crops_anywhere else span // 2
        windows[:, 2] = flips
        return windows

    def transform_image(self, image: NDArray[Any] | Picture, draw: Draw, out: NDArray[np.float32]) -> None:
        """Write one transformed image to `out`, float32 (C, h, w), of the output_shape of `image`.

        image: (C, H, W), uint8 or float32, of any strides. Raises DataError when a picture is damaged.
        """
        height, width = out.shape[1:]
        row = self._place(draw.row, image.shape[1] - height)
        column = self._place(draw.column, image.shape[2] - width)
        pixels = image.pixels(row + height) if isinstance(image, Picture) else image
        window = pixels[:, row : row + height, column : column + width]
        if window.strides[-1] != window.itemsize:  # channels alternate; what lies together is converted fast
            window = np.ascontiguousarray(window[..., ::-1] if draw.is_flipped else window)
        elif draw.is_flipped:
            window = window.astype(np.float32)[..., ::-1]  # floats are turned round faster than bytes
        if draw.is_flipped:
            column = image.shape[2] - width - column
        np.copyto(out, window)
        self._normalise(out, row, column, draw.is_flipped)

    def transform_batch(
        self,
        images: NDArray[Any] | Sequence[NDArray[Any]],
        epochs: NDArray[np.int64],
        indices: NDArray[np.int64],
        out: NDArray[np.float32],
    ) -> None:
        """Write the transformed images to `out`.

        Arguments:
            images: N of (C, H, W), uint8 or float32, all of one size that output_shape accepts: one array, or
                one for each, which may be mixed.
            epochs, indices: int64 (N,), which record in which epoch each is: what is random depends on these.
            out: float32 (N, C, h, w), overwritten.
        """
        if isinstance(images, np.ndarray) and not self._is_random:
            height, width = out.shape[2:]
            row, column = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
            np.copyto(out, images[..., row : row + height, column : column + width])
            self._normalise(out, row, column)
            return
        for image, draw, target in zip(images, self.draw(epochs, indices), out, strict=True):
            self.transform_image(image, draw, target)

    def _normalise(self, out: NDArray[np.float32], row: int, column: int, is_flipped: bool = False) -> None:
        """Take off the mean and scale; (row, column): where the window is, in the flipped image if it is."""
        mean = self._flipped_image if is_flipped else self._mean_image
        if mean is not None:
            mean = mean[:, row : row + out.shape[-2], column : column + out.shape[-1]]
        elif self._mean_values.size:
            mean = self._mean_values
        normalise(out, mean, self.spec.scale)

    def _draw_all(
        self, epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.bool_]]:
        rows = columns = np.zeros(len(indices), np.uint64)
        flips = np.zeros(len(indices), np.bool_)
        if self._crops_anywhere:
            purposes = (Purpose.CROP_ROW, Purpose.CROP_COLUMN)
            shift = np.uint64(64 - _FRACTION_BITS)
            rows, columns = (hash64(self.seed, purpose, epochs, indices) >> shift for purpose in purposes)
        if self.spec.mirror:
            flips = draw_below(hash64(self.seed, Purpose.MIRROR, epochs, indices), 2) == 1
        return rows, columns, flips

    def _place(self, fraction: int, span: int) -> int:
        return fraction * (span + 1) >> _FRACTION_BITS if self._crops_anywhere else span // 2

    def _check_shape(self, channels: int, height: int, width: int) -> None:
        spec = self.spec
        problems = []
        size = f"{channels}x{height}x{width}"
        if spec.crop_size > min(height, width):
            problems.append(
                f"{spec.where}: crop_size must fit into the records of {size}, got {spec.crop_size}"
            )
        if spec.mean_values and len(spec.mean_values) not in (1, channels):
            problems.append(
                f"{spec.where}: mean_value must be given once or for each of {channels} channels, "
                f"got {len(spec.mean_values)}"
            )
        if self._mean_image is not None and self._mean_image.shape != (channels, height, width):
            got = "x".join(map(str, self._mean_image.shape))
            problems.append(f"{spec.mean_file}: mean image must be of the records' size {size}, got {got}")
        if problems:
            raise DataError("\n".join(problems))


def normalise(values: NDArray[np.float32], mean: NDArray[np.float32] | None, scale: float) -> None:
    """Change values to (values - mean)·scale; mean: of a shape that broadcasts to theirs, or None for 0."""
    if mean is not None:
        np.subtract(values, mean, out=values)
    if scale != 1:
        np.multiply(values, np.float32(scale), out=values)
