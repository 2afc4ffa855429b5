"""Reads and writes a mean image, the BlobProto of Caffe's compute_image_mean.

Read once, when a transformer is made.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtrain.data.blob_file import read_shape_and_values
from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2


def read_mean_file(path: str) -> NDArray[np.float32]:
    """Return the mean image, float32 (C, H, W), from a BlobProto of shape (1, C, H, W) or (C, H, W).

    The shape may be given in its new form or by num, channels, height and width.
    Raises DataError when the file can't be read, is no BlobProto, has not as many values as it says, or
    one that is infinite or no number.
    """
    shape, wide = read_shape_and_values(path, "mean_file")
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    with np.errstate(over="ignore"):  # a double that no float holds becomes infinite, and is refused below
        values = wide.astype(np.float32)
    size = "x".join(map(str, shape))
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path}: mean image must be channels x height x width, got {size or 'no shape'}")
    if len(values) != shape[0] * shape[1] * shape[2]:
        raise DataError(f"{path}: mean image of {size} must have as many values, got {len(values)}")
    if not np.isfinite(values).all():
        raise DataError(f"{path}: mean image must hold finite numbers, got {values[~np.isfinite(values)][0]}")
    return values.reshape(shape)


def write_mean_file(path: str, mean: NDArray[np.float32]) -> None:
    """Write a mean image (C, H, W) as a BlobProto of shape (1, C, H, W), in float32.

    The shape is given by num, channels, height and width, as compute_image_mean does: readers of any age know it.
    The file appears whole or not at all; an existing one is replaced. Raises DataError when the disk refuses.
    """
    channels, height, width = mean.shape
    blob = caffe_pb2.BlobProto(num=1, channels=channels, height=height, width=width)
    blob.data.extend(np.ravel(mean).tolist())
    temporary = Path(f"{path}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(blob.SerializeToString())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: mean file must be writable, got: {error.strerror}") from None
