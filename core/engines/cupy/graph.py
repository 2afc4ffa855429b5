"""CUDA graphs: what a GPU was given once, kept to be given again in one launch.

In the flow net → solver → communicator core/solver/captured_iteration.py records an iteration and replays it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.dist.cupy_library import mark


class CaptureFailed(Exception):
    """Something can't be part of a graph; in words, what. Nothing of it has run."""


class Stage:
    """A stream and a memory pool that nobody else has, on the current GPU, for what is captured and what leads to it.

    Memory that is taken in here is not given to anybody outside as long as the stage or a graph of it is there, also
    when nobody in Python knows it any more: replays find it as they left it. What is to be captured must have run in
    here before, so that kernels are compiled and what is kept from one run to the next is in this pool.
    """

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._cuda = cupy.cuda
        self._stream = cupy.cuda.Stream(non_blocking=True)  # CUDA's default stream can't be captured
        self._pool = cupy.cuda.MemoryPool()

    @property
    def num_bytes(self) -> int:
        """How much memory the pool has taken of the GPU's."""
        return int(self._pool.total_bytes())

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let the body work on this stream and in this memory: behind all that the current stream has, and before
        what that is given afterwards.
        """
        outside = self._cuda.get_current_stream()
        self._stream.wait_event(mark(self._cupy, outside))
        try:
            with self._stream, self._cuda.using_allocator(self._pool.malloc):
                yield
        finally:
            outside.wait_event(mark(self._cupy, self._stream))

    def capture(self, run: Callable[[], None]) -> Graph:
        """Return what `run` gives the current stream as a graph; nothing of it happens until the graph is replayed.

        Raises CaptureFailed for whatever `run` or CUDA raises; the stage is of no use then.
        """
        stream = self._stream
        with self.entered():
            try:
                stream.begin_capture()
                run()
                graph = stream.end_capture()
                graph.upload()
            except Exception as error:
                self._give_up()
                raise CaptureFailed(_in_words(error)) from error
        return Graph(graph, self._pool)

    def _give_up(self) -> None:
        """End a capture that has failed; what CUDA says of that is known."""
        with suppress(Exception):
            self._stream.end_capture()
            return
        with suppress(Exception):  # cupy does not end what CUDA has declared invalid
            self._cuda.runtime.streamEndCapture(self._stream.ptr)


class Graph:
    """What a stage has captured, and the memory that it works in."""

    def __init__(self, graph: Any, pool: Any) -> None:
        self._graph = graph
        self._pool = pool

    def replay(self) -> None:
        """Give all of it to the current stream."""
        self._graph.launch()


class Mailbox:
    """Numbers that come from the GPU behind the host's back: float64 (count,).

    sent: the array on the device. It is copied to pinned memory, so that nobody waits until the values are wanted.
    """

    def __init__(self, cupy: Any, count: int) -> None:
        self._cuda = cupy.cuda
        self.sent = cupy.zeros(count, np.float64)
        memory = cupy.cuda.alloc_pinned_memory(self.sent.nbytes)
        self._values = np.frombuffer(memory, np.float64, count)
        self._posted = cupy.cuda.Event(disable_timing=True)

    def post(self) -> Any:
        """Have `sent` copied when the current stream comes to it; return the event behind that, always the same."""
        self.sent.get(out=self._values, blocking=False)
        self._posted.record(self._cuda.get_current_stream())
        return self._posted

    def take(self) -> NDArray[np.float64]:
        """Return what has come, once the event of `post` has happened; for reading, until the next `post`."""
        return self._values


def _in_words(error: Exception) -> str:
    """Return what an error says, in one line; of what is nobody's sentence also which it is."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
