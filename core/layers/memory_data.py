"""MemoryData: batches of arrays that a script hands over."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer

log = logging.getLogger(__name__)

_FIELDS = ("batch_size", "channels", "height", "width")


@LAYERS.register("MemoryData")
class MemoryData(Layer):
    """Top 0: (batch_size, channels, height, width). Top 1: labels, (batch_size, 1, 1, 1) after a forward pass.

    The rows of the arrays that set_arrays was given come in order, and over again after the last; on several
    ranks each has the arrays that its own script gave. transform_param is not applied to them, as in Caffe.
    position: how many rows have been read since then; snapshots keep it, and a test pass starts at the first row.
    Follows caffe's memory_data_layer.cpp.
    """

    messages = ("memory_data_param", "transform_param")
    bottoms = Arity(0, 0)
    tops = Arity(2, 2)
    has_backward = False

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError where a field of memory_data_param is missing."""
        param = self.param.memory_data_param
        missing = [field for field in _FIELDS if not getattr(param, field)]
        if missing:
            raise UserError(
                f"memory_data_param must give {', '.join(_FIELDS)}, each at least 1, got no {', '.join(missing)}"
            )
        if self.param.HasField("transform_param"):
            log.warning('layer "%s": transform_param is not applied to arrays from memory', self.name)
        self.batch_size: int = param.batch_size
        self.item_shape: tuple[int, ...] = (param.channels, param.height, param.width)
        self.position = 0
        self._arrays: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        top[0].reshape(self.batch_size, *self.item_shape)
        top[1].reshape(self.batch_size)

    def set_arrays(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Read from these arrays, and from their first row, from now on; they are not copied.

        data: (n, channels, height, width), labels: (n, 1, 1, 1), both float32 and contiguous in C order; n is a
        multiple of batch_size, at least one. Raises UserError for others.
        """
        _check_array(data, self.item_shape, "data")
        _check_array(labels, (1, 1, 1), "labels")
        if len(data) != len(labels):
            raise UserError(f"data and labels must have as many rows, got {len(data)} and {len(labels)}")
        if not len(data) or len(data) % self.batch_size:
            raise UserError(
                f"the number of rows must be a multiple of batch_size, {self.batch_size}, got {len(data)}"
            )
        self._arrays, self.position = (data, labels), 0

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Do nothing: the shapes are fixed."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Copy the next batch_size rows into the tops. Raises UserError before set_arrays."""
        if self._arrays is None:
            raise UserError("has no arrays to read; call net.set_input_arrays(data, labels) first")
        first = self.position % len(self._arrays[0])
        for blob, array in zip(top, self._arrays, strict=True):
            rows = array[first : first + self.batch_size]
            blob.reshape(*rows.shape)
            blob.write_data(self.memory)[...] = self.xp.asarray(rows)
        self.position += self.batch_size

    def get_state(self) -> bytes | None:
        """Return the position, as decimal digits."""
        return b"%d" % self.position

    def set_state(self, state: bytes) -> None:
        """Read on from where get_state was called; the arrays are to be the same. Raises UserError for no number."""
        if not state.isdigit():
            raise UserError(
                f"position must be a number of rows, got {state!r}; the snapshot is of another net"
            )
        self.position = int(state)

    def begin_anew(self) -> None:
        """Read from the first row on."""
        self.position = 0

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Do nothing: there is no bottom."""


def _check_array(array: NDArray[np.float32], item_shape: tuple[int, ...], name: str) -> None:
    """Raise UserError unless `array` is float32, contiguous and of shape (n, *item_shape)."""
    kind = f"{array.dtype}{'' if array.flags.c_contiguous else ', not contiguous'}"
    if kind != "float32":
        raise UserError(
            f"{name} must be a float32 array, contiguous in C order, got {kind}; "
            f"use np.ascontiguousarray({name}, np.float32)"
        )
    if array.ndim != 4 or array.shape[1:] != item_shape:
        wanted = ", ".join(map(str, item_shape))
        raise UserError(f"{name} must have the shape (n, {wanted}), got {array.shape}")
