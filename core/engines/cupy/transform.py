"""Images on a GPU: bytes are copied there, and crop, mirror, mean, scale and cast are one pass.

Between the loader's batch of records and the net. What a transform does, and what is random about each image, is
data/transformer.py's; results are the same to the last bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dtrain.core.engines.cupy.kernels import C_TYPES, NUM_THREADS, Kernel
from dtrain.data.transformer import Transformer

MAX_IMAGES = 65535  # of one launch: blocks in the grid's second direction


class ImageTransform:
    """Does on the device what a Transformer does on the host.

    Arguments:
        cupy: the module. transformer: whose spec and mean are taken.
        record_shape: (C, H, W) of all images; one that transformer.output_shape accepts.
    """

    def __init__(self, cupy: Any, transformer: Transformer, record_shape: tuple[int, ...]) -> None:
        self._cupy = cupy
        self._record_shape = record_shape
        self._scale = np.float32(transformer.spec.scale)
        self._kernels: dict[str, Kernel] = {}
        channels, height, width = record_shape
        mean = transformer.mean
        is_image = mean is not None and mean.shape == record_shape
        if mean is None:
            mean = np.zeros(channels, np.float32)
        elif not is_image:
            mean = np.broadcast_to(mean.reshape(-1), channels).astype(np.float32)
        self._mean = cupy.asarray(np.ascontiguousarray(mean))
        steps = (height * width, width, 1) if is_image else (1, 0, 0)
        self._mean_steps = [np.int32(step) for step in steps]

    def run(
        self,
        images: Any,
        windows: Any,
        out: Any,
        channels_last: bool = False,
        out_channels_last: bool = False,
    ) -> None:
        """Write the transformed images to `out`.

        Arguments:
            images: uint8 (N, C, H, W), or (N, H, W, C) if channels_last, as decoders give it, without gaps, on the
                device, as are the others.
            windows: int32 (N, 3): what transformer.windows gives for the records.
            out: (N, C, h, w), or (N, h, w, C) if out_channels_last, overwritten; float32 for the host's bits.
        """
        channels, height, width = self._record_shape
        h, w = out.shape[1:3] if out_channels_last else out.shape[2:4]
        # between channels, rows and columns
        steps = (1, width * channels, channels) if channels_last else (height * width, width, 1)
        numbers = (
            *(np.int32(channels), np.int32(h), np.int32(w), np.int64(channels * height * width)),
            *(np.int32(step) for step in steps),
            *self._mean_steps,
            *(self._scale, np.int32(out_channels_last)),
        )
        kernel, num_blocks, num_images = self._kernel(out), -(-h * w // NUM_THREADS), len(images)
        for first in range(0, num_images, MAX_IMAGES):
            arrays = (images, windows, out)
            if num_images > MAX_IMAGES:
                arrays = tuple(array[first : first + MAX_IMAGES] for array in arrays)
            grid = num_blocks, len(arrays[0])
            kernel.launch(grid, (NUM_THREADS,), *arrays[:2], self._mean, arrays[2], *numbers)

    def _kernel(self, out: Any) -> Kernel:
        dtype = out.dtype.name
        if dtype not in self._kernels:
            self._kernels[dtype] = Kernel(self._cupy, "transform", VALUE=C_TYPES[dtype])
        return self._kernels[dtype]
