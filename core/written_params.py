"""Params whose values stand in the prototxt: a layer's `blobs`, which count more than its fillers.

Follows the constructor of caffe's layer.hpp and Blob::FromProto.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.snapshots.blob_proto import shape_fits
from dtrain.data.blob_file import shape_and_values
from dtrain.proto import caffe_pb2


def written_values(
    param: caffe_pb2.LayerParameter, index: int, shape: tuple[int, ...]
) -> NDArray[np.floating[Any]] | None:
    """Return the values that `param` writes out for its layer's param `index`, which is of `shape`; None: none.

    Raises UserError unless they are of that shape; the old form's axes of 1 in front don't count.
    """
    if index >= len(param.blobs):
        return None
    given, values, is_legacy = shape_and_values(param.blobs[index])
    if not shape_fits(given, shape, is_legacy) or values.size != math.prod(shape):
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
