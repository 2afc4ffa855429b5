"""The reducer: sums an arena's buckets over all ranks, one after the other, while the caller computes on.

In the flow prototxt → graph → net → solver → communicator → snapshot the solver's gradient exchange says when a
bucket is ready, lets the reducer move on after each layer, and takes the sums bucket by bucket. Between hosts, where
a layer's time is a long one for a link that waits for its next message, a thread lets it move on instead.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dtrain.dist.communicator import Array, Communicator
from dtrain.dist.reduction import Reduction
from dtrain.dist.wire import Wire

IDLE_S = 1.0  # between two looks whether there is a reducer still
LOOK_S = 0.001  # between two looks of the thread: what comes meanwhile, others have in their buffers


class Reducer:
    """Reduces slices of one arena. All ranks start the same buckets in the same order.

    Arguments:
        arena: (n,) float32, from communicator.allocate for speed; or in a GPU's memory, if the communicator takes it.
        buckets: slices of it, numbered in the order in which they are started in each round.
        titles: what to call each bucket in the line of a failure.
        wire: what travels instead of float32, or None.

    Making one is collective.
    """

    def __init__(
        self,
        communicator: Communicator,
        arena: Array,
        buckets: Sequence[slice],
        titles: Sequence[str],
        wire: Wire | None = None,
    ) -> None:
        self._communicator = communicator
        self._values = [arena[bucket] for bucket in buckets]
        self._titles = [f"summing bucket {k} of {len(buckets)} ({title})" for k, title in enumerate(titles)]
        self._wire = wire if communicator.world_size > 1 else None
        self._arena: Any = arena
        self._is_on_device = not isinstance(arena, np.ndarray)
        self._goes_by_itself = self._is_on_device and communicator.captures
        self._wires = self._allocate_wires() if self._wire else self._values
        self._started: list[Reduction] = []
        self._num_done = 0
        self._under_way = threading.Event()
        self._has_thread = communicator.topology.num_nodes > 1 and not self._is_on_device
        if self._has_thread:
            thread = threading.Thread(
                target=_keep_moving, args=(weakref.ref(self), self._under_way), name="reducer", daemon=True
            )
            thread.start()

    @property
    def num_started(self) -> int:
        """How many buckets of this round have been started."""
        return len(self._started)

    def start_to(self, end: int) -> None:
        """Start the buckets before number `end` that have not been started. Collective."""
        for k in range(self.num_started, end):
            if self._wire:
                self._wire.compress(k, self._values[k], self._wires[k])
            with self._communicator.lock:
                self._started.append(self._communicator.start_all_reduce(self._wires[k]))
        if self._started:
            self._under_way.set()

    def move_on(self) -> None:
        """Let the reductions under way move on, without waiting for anybody, unless a thread or a GPU does so."""
        if not (self._has_thread or self._goes_by_itself):
            self._move_on()

    def _move_on(self) -> None:
        """Let them move on, unless another thread is about it."""
        if not self._communicator.lock.acquire(blocking=False):
            return
        try:
            while self._num_done < self.num_started and self._started[self._num_done].test():
                self._num_done += 1
            if self._num_done == self.num_started:
                self._under_way.clear()
        finally:
            self._communicator.lock.release()

    def complete(self) -> Iterator[int]:
        """Start what is left and yield each bucket's number when its sums are there; then a new round. Collective.

        On a GPU they are there for what its current stream is given next; the host waits for nothing.
        """
        self.start_to(len(self._values))
        activity = self._communicator.activity
        for k, reduction in enumerate(self._started):
            activity.doing, activity.collective = self._titles[k], "all_reduce"
            began = time.monotonic()
            with self._communicator.lock:
                reduction.wait()
            self._communicator.waited_s += time.monotonic() - began
            activity.collective = ""
            if self._wire:
                self._wire.decompress(k, self._wires[k], self._values[k])
            yield k
            self.move_on()
        self.forget()

    def forget(self) -> None:
        """Begin a new round, whatever has been started."""
        with self._communicator.lock:
            self._started, self._num_done = [], 0
            self._under_way.clear()

    def _allocate_wires(self) -> list[Array]:
        assert self._wire is not None
        sizes = [self._wire.size(values.size) for values in self._values]
        memory = self._allocate(sum(sizes), self._wire.dtype)
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        return [memory[end - size : end] for end, size in zip(ends, sizes, strict=True)]

    def _allocate(self, num_elements: int, dtype: np.dtype[Any]) -> Array:
        """Return memory where the arena is: the communicator's, or a GPU's."""
        if self._is_on_device:
            return np.zeros_like(self._arena, dtype, shape=num_elements)
        return self._communicator.allocate(num_elements, dtype)


def _keep_moving(reducer: weakref.ref[Reducer], under_way: threading.Event) -> None:
    """Let what is under way move on, again and again, until the reducer is gone or has failed."""
    while (found := reducer()) is not None:
        try:
            found._move_on()
        except Exception:  # whoever waits for the reduction meets it too, and says it
            return
        del found
        time.sleep(LOOK_S)
        under_way.wait(IDLE_S)
