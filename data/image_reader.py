"""Reads batches of images from files: positions → lines of a list → files → transformed images and labels.

The batch reader of the ImageData layer. Follows caffe's image_data_layer.cpp; where Caffe shuffles the list
again at each of its ends, here the order of an epoch is a function of (seed, epoch).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtrain.data.batch import Batch, Shape
from dtrain.data.batch_reader import BatchReader
from dtrain.data.errors import DataError
from dtrain.data.hash64 import Purpose, draw_below, hash64
from dtrain.data.image_batch import errors_named, fill_images
from dtrain.data.image_codec import open_image
from dtrain.data.image_list import ImageList, read_file
from dtrain.data.image_resize import ResizedPicture
from dtrain.data.picture import Colors, Picture
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer
from dtrain.data.workers import Workers


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """How the images of a list are found and read.

    folder: what is put before each path, as it stands. colors: COLOR or GRAY. size: (height, width) to which
    each is resized before it is transformed, or None. max_skip: the stream begins at a random record below it.
    """

    folder: str = ""
    colors: Colors = Colors.COLOR
    size: tuple[int, int] | None = None
    max_skip: int = 0


class ImageReader(BatchReader):
    """Read batches of images (N, C, h, w) and labels (N,) from the files that a list names.

    The images of a batch come out in one size, which may be another in the next batch. record_shape: (C, H, W) of the
    first one before it is transformed. The workers end with the reader. Raises DataError when the first image can't
    be read or does not fit the transformer, or when more records may be skipped than there are.
    """

    def __init__(
        self,
        images: ImageList,
        spec: ImageSpec,
        sampler: Sampler,
        transformer: Transformer,
        workers: Workers | None = None,
    ) -> None:
        if spec.max_skip > len(images):
            raise DataError(
                f"{images.path}: rand_skip must be at most {len(images)}, the number of lines, got {spec.max_skip}"
            )
        self._images = images
        self._spec = spec
        self._sampler = sampler
        self._transformer = transformer
        self._workers = workers or Workers()
        self._skip = self._draw_skip()
        self.num_records = len(images)
        first = int(self._records(np.zeros(1, np.int64))[1][0])
        with errors_named(images.line, first):
            self.record_shape: Shape = self._open(first).shape
            self.shapes = (transformer.output_shape(self.record_shape), ())

    def leave_images(self) -> Transformer:
        """Leave images as decoded, and resized."""
        self.stored_shape = self.record_shape
        return self._transformer

    def reseed(self, seed: int) -> None:
        """Take the order of records, where it begins and the random transformations from `seed`."""
        self._sampler.reseed(seed)
        self._transformer.seed = seed
        self._skip = self._draw_skip()

    def read(self, positions: NDArray[np.int64], batch: Batch) -> None:
        """Fill `batch` with the images at `positions`, int64 (N,).

        Raises DataError with the line of an image that can't be read, or is of another size than the first.
        """
        batch.epochs[:], batch.indices[:] = self._records(positions)
        batch.labels[:] = self._images.labels[batch.indices]
        indices = batch.indices.tolist()

        def open_item(item: int) -> Picture:
            return self._open(indices[item])

        def name_item(item: int) -> str:
            return self._images.line(indices[item])

        leaves_images = self.stored_shape is not None
        fill_images(batch, open_item, name_item, self._transformer, self._workers, leaves_images)

    def name_record(self, index: int) -> str:
        """Return the image's path and line."""
        return f'image "{self._images.paths[index]}" of {self._images.line(index)}'

    def close(self) -> None:
        """End the workers."""
        self._workers.close()

    def _records(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._sampler.records(positions + self._skip)

    def _draw_skip(self) -> int:
        """Return by how much positions are shifted: 0 … max_skip − 1."""
        bits = hash64(self._transformer.seed, Purpose.SKIP, 0, 0)
        return int(draw_below(bits, max(self._spec.max_skip, 1))[0])

    def _open(self, index: int) -> Picture:
        path = self._spec.folder + self._images.paths[index]
        data = read_file(path)
        try:
            picture = open_image(data, self._spec.colors)
        except DataError as error:
            raise DataError(f"{path}: {error.problem}") from None
        return ResizedPicture(picture, *self._spec.size) if self._spec.size else picture
