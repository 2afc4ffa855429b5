"""Turns the images of a batch into what the net reads: crop, mirror, mean and scale.

Between records and the loader's batch. Follows caffe's data_transformer.cpp: y = (x - mean)·scale, of a
window of the image, perhaps flipped. Where Caffe draws window and flip from a generator, here they are a pure
function of (seed, epoch, record), the same on any number of ranks and after any restart.

N C H W: images, channels, height, width of the records; the result is N C h w.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.data.hash64 import Purpose, draw_below, hash64
from dtrain.data.mean_file import read_mean_file
from dtrain.proto import caffe_pb2

log = logging.getLogger(__name__)

_Window = tuple[EllipsisType, slice, slice]


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """What a transform_param says.

    scale: factor after the mean is taken off; mirror: flip left and right by a chance of one half;
    crop_size: side of a square window, random in TRAIN, central in TEST, 0: the whole image;
    mean_file: an image of the records' size; mean_values: one for all channels or one for each.
    where: the place of the transform_param, for messages.
    """

    scale: float = 1.0
    mirror: bool = False
    crop_size: int = 0
    mean_file: str = ""
    mean_values: tuple[float, ...] = ()
    where: str = "transform_param"

    @classmethod
    def from_param(
        cls, param: caffe_pb2.TransformationParameter, where: str = "transform_param"
    ) -> TransformSpec:
        """Take the parameters from the prototxt's message; `where` is its place, such as ``net.prototxt:7``.

        Raises DataError, a line for each, when parameters exclude one another.
        """
        problems = []
        if param.mean_file and param.mean_value:
            problems.append(f"{where}: mean_file and mean_value must not be set both; take one out")
        if param.force_color and param.force_gray:
            problems.append(f"{where}: force_color and force_gray must not be set both; take one out")
        if problems:
            raise DataError("\n".join(problems))
        if param.force_color or param.force_gray:
            log.warning("%s: force_color and force_gray are for compressed images only", where)
        return cls(
            param.scale, param.mirror, param.crop_size, param.mean_file, tuple(param.mean_value), where
        )


class Transformer:
    """Transform whole batches by one TransformSpec.

    Arguments:
        spec: what to do. train: random windows, else central ones (flips are random in both, as in Caffe).
        seed: any integer, the same on all ranks.
    Raises DataError when the mean file can't be read.
    """

    def __init__(self, spec: TransformSpec, train: bool, seed: int = 0) -> None:
        self.spec = spec
        self.train = train
        self.seed = seed
        self._mean = _load_mean(spec)
        self._scale = np.float32(spec.scale)
        self._is_random = spec.mirror or bool(train and spec.crop_size)

    def output_shape(self, record_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return (C, h, w) for records of (C, H, W): (C, crop_size, crop_size), or the same without a crop.

        Raises DataError, a line for each, when crop or mean don't fit the records.
        """
        spec = self.spec
        problems = []
        size = "x".join(map(str, record_shape))
        if spec.crop_size > min(record_shape[1:]):
            problems.append(
                f"{spec.where}: crop_size must fit into the records of {size}, got {spec.crop_size}"
            )
        if spec.mean_values and len(spec.mean_values) not in (1, record_shape[0]):
            problems.append(
                f"{spec.where}: mean_value must be given once or for each of {record_shape[0]} channels, "
                f"got {len(spec.mean_values)}"
            )
        if spec.mean_file and self._mean is not None and self._mean.shape != record_shape:
            got = "x".join(map(str, self._mean.shape))
            problems.append(f"{spec.mean_file}: mean image must be of the records' size {size}, got {got}")
        if problems:
            raise DataError("\n".join(problems))
        return (record_shape[0], spec.crop_size, spec.crop_size) if spec.crop_size else record_shape

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
        spans = images[0].shape[1] - out.shape[2], images[0].shape[2] - out.shape[3]
        if isinstance(images, np.ndarray) and not self._is_random:
            window = _window(spans[0] // 2, spans[1] // 2, out)
            self._normalise(images[window], window, out)
            return
        values = np.empty(out.shape[1:], np.float32)  # one image, which stays in the cache
        rows, columns, flips = self._draw(spans, epochs, indices)
        for image, row, column, flip, target in zip(images, rows, columns, flips, out, strict=True):
            window = _window(row, column, target)
            np.copyto(values, image[window])
            if flip:
                self._normalise(values, window, values)
                np.copyto(target, values[..., ::-1])
            else:
                self._normalise(values, window, target)

    def _draw(
        self, spans: tuple[int, int], epochs: NDArray[np.int64], indices: NDArray[np.int64]
    ) -> tuple[list[int], list[int], list[bool]]:
        """Return for each image the first row and column of its window, and whether it is flipped."""
        offsets = [np.full(len(indices), span // 2) for span in spans]
        flips = np.zeros(len(indices), np.bool_)
        if self.train and self.spec.crop_size:
            purposes = (Purpose.CROP_ROW, Purpose.CROP_COLUMN)
            offsets = [
                draw_below(hash64(self.seed, purpose, epochs, indices), span + 1)
                for purpose, span in zip(purposes, spans, strict=True)
            ]
        if self.spec.mirror:
            flips = draw_below(hash64(self.seed, Purpose.MIRROR, epochs, indices), 2) == 1
        return offsets[0].tolist(), offsets[1].tolist(), flips.tolist()

    def _normalise(self, images: NDArray[Any], window: _Window, out: NDArray[np.float32]) -> None:
        """Write (x - mean)·scale to `out` for one image or many, already cut out; `window` is where."""
        if self._mean is None:
            np.multiply(images, self._scale, out=out, dtype=np.float32)
            return
        mean = self._mean[window] if self.spec.mean_file else self._mean
        np.subtract(images, mean, out=out, dtype=np.float32)
        if self._scale != 1:
            np.multiply(out, self._scale, out=out)


def _window(row: int, column: int, out: NDArray[np.float32]) -> _Window:
    """Return the index of the window at (row, column), of the size of `out`, in the last two axes."""
    return ..., slice(row, row + out.shape[-2]), slice(column, column + out.shape[-1])


def _load_mean(spec: TransformSpec) -> NDArray[np.float32] | None:
    """Return the mean as (C, H, W) from a file, (C or 1, 1, 1) from values; None for no mean."""
    if spec.mean_file:
        return read_mean_file(spec.mean_file)
    if spec.mean_values:
        return np.array(spec.mean_values, np.float32).reshape(-1, 1, 1)
    return None
