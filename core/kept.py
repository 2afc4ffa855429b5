"""What an operation keeps from forward to backward beside its blobs: values that it writes over, marks of its own.

Beside tensor.py: values are not copied but taken out of their storage together with their memory; the storage has
another piece when it is written next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.memory_pool import MemoryPool
from dtrain.core.tensor import Memory, Storage, Tensor
from dtrain.dist.memory import aligned_zeros


class Kept:
    """One piece of memory, of the pool that the blob's storage borrows from where it has one, else used pass by pass.

    values: what is kept, for operations to read; None once it was given back.
    """

    def __init__(self) -> None:
        self.values: Any = None
        self._array: Any = None  # the memory behind them
        self._pool: MemoryPool | None = None
        self._frees_unheld = False  # the memory is nobody's once this lets go of it
        self._kind: tuple[Any, ...] | None = None  # of what storages and memories it can be the copy

    def __del__(self) -> None:
        self.give_back()

    def take(self, tensor: Tensor, memory: Memory) -> Any:
        """Keep the valid values of `tensor` in `memory`, and return them; it must be written next.

        They are copied where others count on the array that they are in.
        """
        self.give_back()
        values, storage = tensor.read(memory), tensor.storage
        kind = memory, storage.capacity, storage.dtype
        if storage.stays(memory):
            if self._kind is not None or self.values is None or self.values.shape != values.shape:
                self.values = values.copy()
            else:
                self.values[...] = values
            self._array = self._kind = None
            self._frees_unheld = False
            return self.values
        self._array, self._pool = storage.exchange(memory, self._array if self._kind == kind else None)
        self._kind = kind
        self._frees_unheld = memory.frees_unheld and storage.pool is not None
        self.values = values
        return values

    def room(self, storage: Storage, num_bytes: int) -> NDArray[np.uint8]:
        """Return room for so many bytes, to be overwritten, from where `storage` has its memory."""
        self.give_back()
        kind = (num_bytes,)
        if storage.pool is not None:
            self._array, self._pool = storage.pool.lend(num_bytes), storage.pool
        elif self._kind != kind:
            self._array = aligned_zeros(num_bytes, np.uint8)
        self._kind = kind
        self.values = self._array
        found: NDArray[np.uint8] = self._array
        return found

    def give_back(self) -> None:
        """Return to its pool what was borrowed: nobody reads it any more."""
        if self._pool is not None:
            self._pool.give_back(self._array)
        if self._pool is not None or self._frees_unheld:
            self.values = self._array = self._pool = self._kind = None
