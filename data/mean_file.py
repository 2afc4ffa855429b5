"""Reads a mean image, the BlobProto that compute_image_mean writes.

Read once, when a transformer is made.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2


def read_mean_file(path: str) -> NDArray[np.float32]:
    """Return the mean image, float32 (C, H, W), from a BlobProto of shape (1, C, H, W) or (C, H, W).

    The shape may be given in its new form or by num, channels, height and width.
    Raises DataError when the file can't be read, is no BlobProto or has not as many values as it says.
    """
    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: mean_file must be readable, got: {error.strerror}") from None
    except DecodeError:
        raise DataError(f"{path}: mean_file must be a BlobProto (.binaryproto), got other bytes") from None
    shape = _read_shape(blob)
    values = np.array(blob.data or blob.double_data, np.float32)
    size = "x".join(map(str, shape))
    if len(shape) != 3 or min(shape) < 1:
        raise DataError(f"{path}: mean image must be channels x height x width, got {size or 'no shape'}")
    if len(values) != shape[0] * shape[1] * shape[2]:
        raise DataError(f"{path}: mean image of {size} must have as many values, got {len(values)}")
    return values.reshape(shape)


def _read_shape(blob: caffe_pb2.BlobProto) -> tuple[int, ...]:
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    return shape[1:] if len(shape) == 4 and shape[0] == 1 else shape
