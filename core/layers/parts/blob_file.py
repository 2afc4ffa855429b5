"""Reads a file that holds one BlobProto, such as InfogainLoss's matrix."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.proto import caffe_pb2


def read_blob_file(path: str, field: str) -> NDArray[Any]:
    """Return the values of the BlobProto in file `path` in their shape, float32 or (from double_data) float64.

    The shape may be given in its new form or by num, channels, height and width. Raises UserError, in the name of
    the prototxt's `field`, if the file can't be read, is no BlobProto or has not as many values as it says.
    """
    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {field} must be a readable file, got: {error.strerror}") from None
    except DecodeError:
        raise UserError(f"{path}: {field} must be a binary BlobProto, got other bytes") from None
    is_double = len(blob.double_data) > 0
    values = np.array(blob.double_data if is_double else blob.data, np.float64 if is_double else np.float32)
    shape = _shape_of(blob)
    if math.prod(shape) != values.size:
        raise UserError(f"{path}: {field} of shape {shape} must have as many values, got {values.size}")
    return values.reshape(shape)


def _shape_of(blob: caffe_pb2.BlobProto) -> tuple[int, ...]:
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return blob.num, blob.channels, blob.height, blob.width
    return tuple(blob.shape.dim)
