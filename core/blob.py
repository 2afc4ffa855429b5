"""Blobs: an array of data and one of diff (its gradient), what layers read and write.

A blob offers two faces. `data` and `diff` are plain writable numpy views, as pycaffe users expect. Layers and
engines use `read_data`, `write_data`, `update_data` (and the same for diff), which say in which memory the
values are wanted and what for, so that values stay where the engine computes (see tensor.py).
"""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.core.caffe_state import STATE
from dtrain.core.errors import UserError
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
        """The values as a writable host array of `shape`, which the caller may keep and change from now on."""
        array: NDArray[Any] = self.data_tensor.show()
        return array

    @property
    def diff(self) -> NDArray[Any]:
        """The gradient as a writable host array of `shape`, which the caller may keep and change from now on."""
        array: NDArray[Any] = self.diff_tensor.show()
        return array

    def reshape(self, *shape: int) -> None:
        """Change the shape; the memory is kept where it is large enough.

        Raises UserError for more than 32 axes, and for lengths that are negative or no whole numbers.
        """
        if shape != self.data_tensor.shape:
            shape = _checked_shape(shape)
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

    def clear_diff(self) -> None:
        """Let the diff be zero; unless somebody may hold the array, it is only written when somebody reads it."""
        self.diff_tensor.storage.clear()

    def join_diff(self, memory: Memory = HOST) -> tuple[Any, bool]:
        """Return the diff in `memory` for one more gradient, and whether that is to be added to it; if not, there
        is none yet, and the caller overwrites it in full.
        """
        return self.diff_tensor.join(memory)

    def add_to_diff(self, gradient: Any, memory: Memory = HOST) -> None:
        """Add a gradient, an array of the engine whose memory it is, of the diff's shape or of one that fits it."""
        diff, is_sum = self.join_diff(memory)
        if is_sum:
            diff += gradient
        else:
            diff[...] = gradient

    def legacy_shape(self, axis: int) -> int:
        """Return the length of `axis` of num, channels, height, width; missing axes count as 1.

        Raises UserError for a blob of more than 4 axes.
        """
        if len(self.shape) > 4:
            raise UserError(
                f"num, channels, height and width need a blob of at most 4 axes, got {self.shape}; use shape"
            )
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

    @property
    def _gpu_data_ptr(self) -> int:
        """The address of the data on the GPU, for changing there. Raises UserError where no GPU computes."""
        return _address(self.data_tensor, "data")

    @property
    def _gpu_diff_ptr(self) -> int:
        """The address of the diff on the GPU, for changing there. Raises UserError where no GPU computes."""
        return _address(self.diff_tensor, "diff")


def _address(tensor: Tensor, name: str) -> int:
    """Return where a tensor's values are in the device memory that it has a copy in, or that this thread's nets use.

    As with caffe's mutable_gpu_data the values there are from now on the ones that count.
    """
    known = [memory for memory in tensor.storage.copies if memory.has_addresses]
    memory = known[0] if known else STATE.gpu_memory
    if memory is None:
        raise UserError(
            f"blob._gpu_{name}_ptr: the values must be on a GPU, but the CPU computes; use blob.{name}"
        )
    return int(tensor.update(memory).data.ptr)


def _checked_shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Return `shape` as plain whole numbers (numpy's are taken too)."""
    if len(shape) > MAX_AXES:
        raise UserError(f"a blob must have at most {MAX_AXES} axes, got {len(shape)}")
    try:
        lengths = tuple(operator.index(length) for length in shape)
    except TypeError:
        lengths = (-1,)
    if min(lengths, default=0) < 0:
        raise UserError(f"a blob's shape must be whole numbers, 0 or more, got {shape}")
    return lengths


class BlobVec(list[Blob]):
    """A layer's params. `add_blob(*shape)` appends one, as pycaffe's does.

    keeps_memory: whether blobs that are assigned hand over copies of their values; see __setitem__.
    """

    keeps_memory = False

    def add_blob(self, *shape: int) -> Blob:
        """Append a blob of zeros of `shape` and return it."""
        blob = Blob(_checked_shape(shape))
        self.append(blob)
        return blob

    def __setitem__(self, index: SupportsIndex | slice, value: Any) -> None:
        """Let param `index` use the data and diff of the blob `value` from now on, as assignment does in pycaffe.

        The params of a solver's train net, which lie in one arena, take over the values of the data instead.
        A slice replaces the blobs themselves, as in any list. Raises UserError for another shape.
        """
        if isinstance(index, slice):
            super().__setitem__(index, value)
            return
        mine = self[index]
        if not isinstance(value, Blob):
            raise UserError(
                f"a param must be assigned a blob, got {type(value).__name__}; to set values use .data[...] = …"
            )
        if value.shape != mine.shape:
            raise UserError(f"a param of shape {mine.shape} must be assigned a blob of it, got {value.shape}")
        if self.keeps_memory:
            mine.data[...] = value.data
        else:
            mine.share_data(value)
            mine.share_diff(value)
