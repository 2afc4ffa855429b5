"""Device memory: where a blob's values lie while a GPU computes."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

from numpy.typing import DTypeLike, NDArray

from dtrain.core.errors import UserError
from dtrain.core.tensor import Borrow, Memory
from dtrain.dist.cupy_library import has_happened, mark


class DeviceMemory(Memory):
    """Row-major arrays of cupy on the GPU that is the current one. Engines take device_memory's.

    cupy's own pool hands out what has been given back, in the order of the stream: blobs whose lives don't overlap
    have the same memory, without a pool of ours.
    """

    name = "device"
    has_addresses = True
    frees_unheld = True

    def __init__(self, cupy: ModuleType) -> None:
        self._cupy: Any = cupy

    def allocate(self, count: int, dtype: DTypeLike) -> Any:
        """Return zeros (count,) on the device."""
        return self._cupy.zeros(count, dtype)

    def borrow(self, borrow: Borrow, count: int, dtype: DTypeLike) -> Any:
        """Return a piece of cupy's pool, whatever is there."""
        return self._cupy.empty(count, dtype)

    def view(self, storage: Any, shape: tuple[int, ...]) -> Any:
        """Return a view of cupy's."""
        return storage[: math.prod(shape)].reshape(shape)

    def from_host(self, host: NDArray[Any], storage: Any) -> None:
        """Copy; what the device was given before it comes first. Raises UserError within a capture."""
        refuse_capture(self._cupy, f"{host.size} values that the host alone has")
        storage.set(host)

    def to_host(self, storage: Any, host: NDArray[Any]) -> None:
        """Wait for what the device was given so far, and copy. Raises UserError within a capture."""
        refuse_capture(self._cupy, f"{host.size} values that are wanted on the host")
        storage.get(out=host)

    def mark(self) -> Callable[[], bool]:
        """Return what says whether the GPU has done what the current stream was given so far."""
        event = mark(self._cupy, self._cupy.cuda.get_current_stream())
        return lambda: has_happened(self._cupy, event)

    def take(self, source: Memory, values: Any, storage: Any) -> bool:
        """Convert what lies on the GPU in another layout."""
        if not isinstance(source, DeviceLayout):
            return False
        source.to_plain(values, storage)
        return True


class DeviceLayout(Memory):
    """Values on the GPU in another order or type than DeviceMemory has them."""

    frees_unheld = True

    @abstractmethod
    def to_plain(self, values: Any, plain: Any) -> None:
        """Write `values` as float32 in row-major order into the device array `plain`."""


def refuse_capture(cupy: Any, what: str) -> None:
    """Raise UserError if the current stream is being captured into a graph: a copy that is meant for now can't be.

    CUDA would take a copy from the host for a part of the graph, and read the host's memory at each replay.
    """
    if cupy.cuda.get_current_stream().is_capturing():
        raise UserError(
            f"what a CUDA graph takes in must be and stay on the GPU, got {what}; run it as it is"
        )


def device_memory(cupy: ModuleType) -> DeviceMemory:
    """Return the memory of the current GPU, the same one each time, so that nets of several engines share values."""
    return _memory_of(cupy, int(cupy.cuda.runtime.getDevice()))


@cache
def _memory_of(cupy: ModuleType, number: int) -> DeviceMemory:
    return DeviceMemory(cupy)
