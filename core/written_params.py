"""Params whose values stand in the prototxt: a layer's `blobs`, which count more than its fillers.

Follows the constructor of caffe's layer.hpp and Blob::FromProto.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.proto import caffe_pb2

_LEGACY_FIELDS = ("num", "channels", "height", "width")


def written_values(
    param: caffe_pb2.LayerParameter, index: int, shape: tuple[int, ...]
) -> NDArray[np.floating[Any]] | None:
    """Return the values that `param` writes out for its layer's param `index`, which is of `shape`; None: none.

    Raises UserError unless they are of that shape; the old form's axes of 1 in front don't count.
    """
    if index >= len(param.blobs):
        return None
    blob = param.blobs[index]
    is_legacy = any(blob.HasField(name) for name in _LEGACY_FIELDS)
    given = (blob.num, blob.channels, blob.height, blob.width) if is_legacy else tuple(blob.shape.dim)
    values = np.array(blob.data or blob.double_data)
    fits = given[max(0, len(given) - len(shape)) :] == shape and math.prod(given) == math.prod(shape)
    if not (fits if is_legacy else given == shape) or values.size != math.prod(shape):
        raise UserError(
            f"blobs: number {index} must be of the param's shape {shape}, got {given} with {values.size} values"
        )
    return values.reshape(shape)


def check_number_written(param: caffe_pb2.LayerParameter, num_params: int) -> None:
    """Raise UserError unless `param` writes out all of its layer's params, or none."""
    if len(param.blobs) not in (0, num_params):
        raise UserError(
            f"blobs must give all {num_params} params of the layer or none, got {len(param.blobs)}"
        )
