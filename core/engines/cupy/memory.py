"""Device memory: where a blob's values lie while a GPU computes."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from numpy.typing import DTypeLike, NDArray

from dtrain.core.tensor import Memory


class DeviceMemory(Memory):
    """Row-major arrays of cupy on the GPU that was the current one when this was made.

    cupy's own pool hands out what has been given back, in the order of the stream: blobs whose lives don't overlap
    have the same memory, without a pool of ours.
    """

    name = "device"

    def __init__(self, cupy: ModuleType) -> None:
        self._cupy: Any = cupy

    def allocate(self, count: int, dtype: DTypeLike) -> Any:
        """Return zeros (count,) on the device."""
        return self._cupy.zeros(count, dtype)

    def view(self, storage: Any, shape: tuple[int, ...]) -> Any:
        """Return a view of cupy's."""
        return storage[: math.prod(shape)].reshape(shape)

    def from_host(self, host: NDArray[Any], storage: Any) -> None:
        """Copy; what the device was given before it comes first."""
        storage.set(host)

    def to_host(self, storage: Any, host: NDArray[Any]) -> None:
        """Wait for what the device was given so far, and copy."""
        storage.get(out=host)
