"""The way of device arrays by the host: page-locked memory to which pieces are copied, and from which back.

In the flow prototxt → graph → net → solver → communicator → snapshot nccl_hierarchical.py sums between hosts so,
since MPI need not know of GPUs. While one piece is between hosts, the next comes down and the one before goes up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np

from dtrain.dist.communicator import Array
from dtrain.dist.cupy_library import has_happened, mark
from dtrain.dist.pipeline import Piece
from dtrain.dist.waiting import Steps, until

DeviceArray = Any  # a cupy.ndarray, which mypy cannot see where cupy is not installed

# The two stages that sum `values` (n,) over hosts into `result` (n,), which lies where `values` does.
Sum = Callable[[Array, Array], Piece]


class _Slot:
    """Memory for one piece on its way."""

    def __init__(self, memory: Array) -> None:
        self.memory = memory
        self.is_taken = False

    def as_array(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Return the first elements."""
        return self.memory[: num_elements * dtype.itemsize].view(dtype)


class Staging:
    """Page-locked memory of so many slots, taken in turn, and a stream for each way.

    Pieces must be made by the Pipeline that they pass through, in the order in which they pass.

    Arguments:
        cupy: cupy's module; the GPU is the current one, here and in all calls.
        num_slots: as many pieces are on their way at most.
        slot_bytes: what a piece has at most.
    """

    def __init__(self, cupy: Any, num_slots: int, slot_bytes: int) -> None:
        self._cupy = cupy
        self._slot_bytes = slot_bytes
        memory = cupy.cuda.alloc_pinned_memory(num_slots * slot_bytes)
        slots = np.frombuffer(memory, np.uint8, num_slots * slot_bytes).reshape(num_slots, slot_bytes)
        self._slots = cycle([_Slot(slot) for slot in slots])
        self._down, self._up = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))

    def pieces(self, source: DeviceArray, target: DeviceArray, ready: Any, add: Sum) -> Iterator[Piece]:
        """Yield the ways of the pieces of `source` by `add` into `target`: four stages.

        Arguments:
            source: (n,), whose values are there when the event `ready` has happened.
            target: (n,), of the same memory or other; of the dtype of the sums, which is no wider.

        A piece has passed the last stage when its sums are in `target`.
        """
        self._down.wait_event(ready)
        step = self._slot_bytes // source.itemsize
        for start in range(0, source.size, step):
            part, into = source[start : start + step], target[start : start + step]
            slot = next(self._slots)
            values, result = slot.as_array(part.size, part.dtype), slot.as_array(into.size, into.dtype)
            yield [
                self._copy_down(slot, part, values),
                *add(values, result),
                self._copy_up(slot, result, into),
            ]

    def _copy_down(self, slot: _Slot, part: DeviceArray, values: Array) -> Steps:
        yield from until(lambda: not slot.is_taken)
        slot.is_taken = True
        yield from self._copy(values.ctypes.data, part.data.ptr, values.nbytes, self._down)

    def _copy_up(self, slot: _Slot, result: Array, into: DeviceArray) -> Steps:
        yield from self._copy(into.data.ptr, result.ctypes.data, result.nbytes, self._up)
        slot.is_taken = False

    def _copy(self, target: int, source: int, num_bytes: int, stream: Any) -> Steps:
        runtime = self._cupy.cuda.runtime
        kind = runtime.memcpyDeviceToHost if stream is self._down else runtime.memcpyHostToDevice
        runtime.memcpyAsync(target, source, num_bytes, kind, stream.ptr)
        over = mark(self._cupy, stream)
        yield from until(lambda: has_happened(self._cupy, over))
