"""Blobs: an array of data and one of diff (its gradient), what layers read and write.

A blob offers two faces. `data` and `diff` are plain writable numpy views, as pycaffe users expect. Layers and
engines use `read_data`, `write_data`, `update_data` (and the same for diff), which say in which memory the
values are wanted and what for, so that values stay where the engine computes (see tensor.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.core.tensor import HOST, Memory, Tensor

MAX_AXES = 32


class Blob:
    """An N-dimensional array of data and its gradient diff, float32 unless said otherwise.

    Source: behaves as caffe's blob.cpp: capacity only grows, unwritten values are zero, no axes is a scalar.
    """

    __slots__ = ("data_tensor", "diff_tensor")

    def __init__(self, shape: tuple[int, ...] = (0,), dtype: DTypeLike = np.float32) -> None:
        self.data_tensor = Tensor(tuple(shape), dtype)
        self.diff_tensor = Tensor(tuple(shape), dtype)

    def __repr__(self) -> str:
        return f"Blob{self.shape}"

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis; () is a scalar."""
        return self.data_tensor.shape

    @property
    def count(self) -> int:
        """The number of values."""
        return self.data_tensor.count

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the values: float32 in training."""
        return self.data_tensor.storage.dtype

    @property
    def data(self) -> NDArray[Any]:
        """The values as a writable host array of `shape`."""
        array: NDArray[Any] = self.data_tensor.update()
        return array

    @property
    def diff(self) -> NDArray[Any]:
        """The gradient as a writable host array of `shape`."""
        array: NDArray[Any] = self.diff_tensor.update()
        return array

    def reshape(self, *shape: int) -> None:
        """Change the shape; the memory is kept where it is large enough."""
        assert len(shape) <= MAX_AXES, f"a blob has at most {MAX_AXES} axes, got {len(shape)}"
        self.data_tensor.reshape(shape)
        self.diff_tensor.reshape(shape)

    def share_data(self, other: Blob) -> None:
        """Use the data of `other`, which has the same count."""
        self.data_tensor.share(other.data_tensor)

    def share_diff(self, other: Blob) -> None:
        """Use the diff of `other`, which has the same count."""
        self.diff_tensor.share(other.diff_tensor)

    def read_data(self, memory: Memory = HOST) -> Any:
        """Return the data in `memory`, not to be changed."""
        return self.data_tensor.read(memory)

    def write_data(self, memory: Memory = HOST) -> Any:
        """Return the data in `memory`, to be overwritten in full."""
        return self.data_tensor.write(memory)

    def update_data(self, memory: Memory = HOST) -> Any:
        """Return the data in `memory`, to be changed."""
        return self.data_tensor.update(memory)

    def read_diff(self, memory: Memory = HOST) -> Any:
        """Return the diff in `memory`, not to be changed."""
        return self.diff_tensor.read(memory)

    def write_diff(self, memory: Memory = HOST) -> Any:
        """Return the diff in `memory`, to be overwritten in full."""
        return self.diff_tensor.write(memory)

    def update_diff(self, memory: Memory = HOST) -> Any:
        """Return the diff in `memory`, to be changed (gradients of params accumulate)."""
        return self.diff_tensor.update(memory)

    def legacy_shape(self, axis: int) -> int:
        """Return the length of `axis` of num, channels, height, width; missing axes count as 1."""
        assert len(self.shape) <= 4, f"num, channels, height, width need at most 4 axes, got {self.shape}"
        return self.shape[axis] if axis < len(self.shape) else 1

    @property
    def num(self) -> int:
        """Axis 0, or 1."""
        return self.legacy_shape(0)

    @property
    def channels(self) -> int:
        """Axis 1, or 1."""
        return self.legacy_shape(1)

    @property
    def height(self) -> int:
        """Axis 2, or 1."""
        return self.legacy_shape(2)

    @property
    def width(self) -> int:
        """Axis 3, or 1."""
        return self.legacy_shape(3)


class BlobVec(list[Blob]):
    """A layer's params. `add_blob(*shape)` appends one, as pycaffe's does."""

    def add_blob(self, *shape: int) -> Blob:
        """Append a blob of zeros of `shape` and return it."""
        blob = Blob(shape)
        self.append(blob)
        return blob
