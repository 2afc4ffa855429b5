"""The reference engine's lowering of images to columns, which turns a convolution into a matrix product.

Columns are laid out (C, kernel…, output…, N) with the batch last: then each filter tap is a copy of runs of
Q·N contiguous values (not of Q), one matrix product serves a whole block of images, and the transposition
that this takes costs less than it saves.
"""

from __future__ import annotations

from typing import Any

from dtrain.core.engines.reference.scratch import Scratch
from dtrain.core.engines.windows import tap_slices

Shape = tuple[int, ...]


class Lowering:
    """Map images (N, C, spatial…) to columns (C, kernel…, output…, N), and back by summation.

    kernel, stride, pad, dilation and output have one entry per spatial axis.
    """

    def __init__(
        self, xp: Any, image: Shape, kernel: Shape, stride: Shape, pad: Shape, dilation: Shape, output: Shape
    ) -> None:
        self.kernel = kernel
        self.output = output
        self.padded = tuple(size + 2 * p for size, p in zip(image, pad, strict=True))
        self.interior = tuple(slice(p, p + size) for size, p in zip(image, pad, strict=True))
        self.is_padded = any(pad)
        self.is_transposition = not self.is_padded and output == image and set(kernel) <= {1}
        self.taps = tap_slices(kernel, stride, dilation, output)
        self._image_scratch = Scratch(xp)

    def columns_shape(self, num_channels: int, num_images: int) -> Shape:
        """Return the shape of the columns of so many channels and images."""
        return (num_channels, *self.kernel, *self.output, num_images)

    def lower(self, images: Any, columns: Any) -> None:
        """Overwrite `columns` by what each filter tap sees of `images`; 0 beyond the border."""
        if self.is_transposition:
            columns.reshape(_batch_last(images).shape)[...] = _batch_last(images)
            return
        padded = self._padded_images(images)
        if self.is_padded:
            padded.fill(0)
        padded[:, *self.interior] = _batch_last(images)
        for tap, seen in self.taps:
            columns[:, *tap] = padded[:, *seen]

    def sum_back(self, columns: Any, images: Any) -> None:
        """Overwrite `images` by the sum of all column entries that `lower` would copy from each place."""
        if self.is_transposition:
            _batch_last(images)[...] = columns.reshape(_batch_last(images).shape)
            return
        padded = self._padded_images(images)
        padded.fill(0)
        for tap, seen in self.taps:
            padded[:, *seen] += columns[:, *tap]
        _batch_last(images)[...] = padded[:, *self.interior]

    def _padded_images(self, images: Any) -> Any:
        num_images, num_channels = images.shape[:2]
        return self._image_scratch.take((num_channels, *self.padded, num_images), images.dtype)


def _batch_last(images: Any) -> Any:
    return images.transpose(*range(1, images.ndim), 0)
