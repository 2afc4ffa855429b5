"""Memories of a GPU: plain float32, and 16-bit values with channels last, with one kernel from each to the other.

In 16 bits tensor cores want channels last. A blob's values stay where an operation wrote them until somebody asks for
them elsewhere (core/tensor.py).
"""

from __future__ import annotations

import math
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.core.engines.cudnn.binding import Shape
from dtrain.core.engines.cupy.convert import Converter
from dtrain.core.engines.cupy.memory import DeviceLayout, DeviceMemory, device_memory, refuse_capture
from dtrain.core.tensor import Borrow, Memory, Tensor

_LEAST_AXES = 4
_HALF_BYTES = 2


class ChannelsLast(DeviceLayout):
    """16-bit values of one shape (N, C, spatial…), in arrays (N, spatial…, C).

    shape: as operations see it, which may be another than the blob's.
    """

    name = "channels last"
    rounds = True

    def __init__(self, memories: Memories, shape: Shape) -> None:
        self.shape = shape
        self.array_shape = (shape[0], *shape[2:], shape[1])
        self._memories = memories

    def allocate(self, count: int, dtype: DTypeLike) -> Any:
        """Return zeros, of the 16-bit type."""
        assert np.dtype(dtype) == np.float32, f"engine cudnn rounds float32, got {dtype}"
        return self._memories.cupy.zeros(self.array_shape, self._memories.half)

    def borrow(self, borrow: Borrow, count: int, dtype: DTypeLike) -> Any:
        """Return a piece of cupy's pool, whatever is there."""
        return self._memories.cupy.empty(self.array_shape, self._memories.half)

    def view(self, storage: Any, shape: Shape) -> Any:
        """Return the storage, which has its own order of axes."""
        return storage

    def from_host(self, host: NDArray[Any], storage: Any) -> None:
        """Copy as float32, and convert there. Raises UserError within a capture."""
        refuse_capture(self._memories.cupy, f"{host.size} values that the host alone has")
        self.from_plain(self._memories.cupy.asarray(host), storage)

    def to_host(self, storage: Any, host: NDArray[Any]) -> None:
        """Convert to float32, and copy that. Raises UserError within a capture."""
        refuse_capture(self._memories.cupy, f"{host.size} values that are wanted on the host")
        plain = self._memories.cupy.empty(math.prod(self.shape), np.float32)
        self.to_plain(storage, plain)
        plain.get(out=host[: plain.size])

    def take(self, source: Memory, values: Any, storage: Any) -> bool:
        """Convert what lies on the GPU already."""
        if isinstance(source, ChannelsLast):
            plain = self._memories.cupy.empty(math.prod(source.shape), np.float32)
            source.to_plain(values, plain)
            self.from_plain(plain, storage)
        elif source is self._memories.plain:
            self.from_plain(values, storage)
        else:
            return False
        return True

    def from_plain(self, plain: Any, values: Any) -> None:
        """Round row-major float32 values into `values`."""
        self._memories.converter.to_channels_last(plain, values, self.shape)

    def to_plain(self, values: Any, plain: Any) -> None:
        """Write `values` as float32 in row-major order."""
        self._memories.converter.to_channels_first(values, plain, self.shape)


class Memories:
    """The memories of one engine. half: the 16-bit type that it computes in, None for float32.

    cupy: the module.
    """

    def __init__(self, cupy: Any, half: np.dtype[Any] | None = None) -> None:
        self.cupy = cupy
        self.half = half
        self.converter = Converter(cupy)
        self.plain = device_memory(cupy)
        self._channels_last: WeakValueDictionary[Shape, ChannelsLast] = WeakValueDictionary()

    def best(self, shape: Shape, half: bool = True) -> DeviceMemory | ChannelsLast:
        """Return where values of `shape` should lie for the heavy operations, if they are to be of 16 bits at all."""
        if self.half is None or not half:
            return self.plain
        shape = as_images(shape)
        memory = self._channels_last.get(shape)
        if memory is None:
            memory = self._channels_last[shape] = ChannelsLast(self, shape)
        return memory

    def of(self, tensor: Tensor, shape: Shape) -> DeviceMemory | ChannelsLast:
        """Return where the values lie that operations see as `shape`: with channels last, or else plain."""
        if self.half is not None:
            memory = self._channels_last.get(as_images(shape))
            if memory is not None and tensor.storage.is_valid(memory):
                return memory
        return self.plain

    def dtype(self, memory: DeviceMemory | ChannelsLast) -> str:
        """Return the name of the type of the values in `memory`."""
        if isinstance(memory, ChannelsLast):
            assert self.half is not None, "there is a type where there is a memory"
            return self.half.name
        return "float32"


def as_images(shape: Shape) -> Shape:
    """Return a shape of at least (N, C, H, W), which cuDNN wants: with axes of length 1 before the last."""
    if len(shape) < _LEAST_AXES:
        *before, last = shape if len(shape) > 2 else (*shape, 1)
        shape = (*before, *[1] * (_LEAST_AXES - 1 - len(before)), last)
    return shape


def bits(array: Any) -> Any:
    """Return an array, as whole numbers if its values have 16 bits: what copies those needs no code for them then."""
    return array.view(np.uint16) if array.dtype.itemsize == _HALF_BYTES else array
