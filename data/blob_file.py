"""Reads a file that holds one BlobProto: a mean image, the matrix of an InfogainLoss."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2

_MAX_AXES = 32  # as Caffe's blobs
_LEGACY_FIELDS = ("num", "channels", "height", "width")


def read_blob_file(path: str, field: str) -> NDArray[Any]:
    """Return the values of the BlobProto in file `path` in their shape, float32 or (from double_data) float64.

    Raises DataError, in the name of the prototxt's `field`, if the file can't be read, is no BlobProto, has a
    shape that can't be, or not as many values as it says.
    """
    shape, values = read_shape_and_values(path, field)
    if len(shape) > _MAX_AXES or min(shape, default=0) < 0:
        raise DataError(
            f"{path}: {field} must have at most {_MAX_AXES} axes, none below 0, got shape {shape}"
        )
    if math.prod(shape) != values.size:
        raise DataError(f"{path}: {field} of shape {shape} must have as many values, got {values.size}")
    return values.reshape(shape)


def read_shape_and_values(path: str, field: str) -> tuple[tuple[int, ...], NDArray[Any]]:
    """Return the shape and the flat values of the BlobProto in file `path`, which may not fit each other.

    The shape may be given in its new form or by num, channels, height and width, which count more, as in Caffe.
    Raises DataError as read_blob_file does.
    """
    blob = caffe_pb2.BlobProto()
    try:
        blob.ParseFromString(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {field} must be a readable file, got: {error.strerror}") from None
    except ValueError:  # the system has no way to say such a name
        raise DataError(f"{path}: {field} must be a file's name, got one with a NUL character") from None
    except DecodeError:
        raise DataError(f"{path}: {field} must be a BlobProto (.binaryproto), got other bytes") from None
    shape, values, _ = shape_and_values(blob)
    return shape, values


def shape_and_values(blob: caffe_pb2.BlobProto) -> tuple[tuple[int, ...], NDArray[Any], bool]:
    """Return the shape, the flat values, and whether the shape is in its old form of four numbers."""
    is_double = len(blob.double_data) > 0 and not blob.data
    values = np.array(blob.double_data if is_double else blob.data, np.float64 if is_double else np.float32)
    is_legacy = any(blob.HasField(name) for name in _LEGACY_FIELDS)
    shape = (blob.num, blob.channels, blob.height, blob.width) if is_legacy else tuple(blob.shape.dim)
    return shape, values, is_legacy
