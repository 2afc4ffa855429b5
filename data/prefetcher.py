"""A thread that fills buffers ahead of whoever takes them.

The engine below the loader; it knows nothing of records. Two queues make it: empty buffers go to the thread,
full ones come back. As many can be ready as there are buffers, and nobody polls.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

# At the interpreter's exit a read that hangs (a dead file server) is not waited for any longer.
_EXIT_TIMEOUT_S = 5.0

Buffer = TypeVar("Buffer")


class Prefetcher(Generic[Buffer]):
    """Fill buffers in a thread of its own, in order, until stopped.

    Arguments:
        fill: called as fill(k, buffer) for k = 0, 1, 2 …, in the thread.
        buffers: those to use in turn. One is with the consumer, so len(buffers) − 1 can be ready; at least 2.
        num_fills: how many to fill, or None for no end.
        name: of the thread.
    """

    def __init__(
        self,
        fill: Callable[[int, Buffer], None],
        buffers: Sequence[Buffer],
        num_fills: int | None = None,
        name: str = "reader",
    ) -> None:
        assert len(buffers) >= 2, f"a prefetcher needs at least 2 buffers, got {len(buffers)}"
        self._empty: SimpleQueue[Buffer | None] = SimpleQueue()
        self._full: SimpleQueue[Buffer | BaseException | None] = SimpleQueue()
        for buffer in buffers:
            self._empty.put(buffer)
        arguments = (fill, self._empty, self._full, num_fills)
        self._thread = threading.Thread(target=_fill_buffers, args=arguments, name=name, daemon=True)
        self._thread.start()
        # Runs stop() at the interpreter's exit, while the thread may still touch what it reads.
        self._finalizer = weakref.finalize(self, _stop, self._thread, self._empty, _EXIT_TIMEOUT_S)

    def get(self, timeout_s: float | None = None) -> Buffer:
        """Wait for the next full buffer and return it; it is the caller's until given to put_back.

        Raises what `fill` raised, again at each further call; StopIteration after num_fills buffers; TimeoutError
        when timeout_s have passed, if given.
        """
        try:
            item = self._full.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError(f"no buffer was filled within {timeout_s} s") from None
        if item is not None and not isinstance(item, BaseException):
            return item
        self._full.put(item)  # for further calls
        raise StopIteration if item is None else item

    def put_back(self, buffer: Buffer) -> None:
        """Hand back a buffer that get() returned, to be filled again."""
        self._empty.put(buffer)

    @property
    def num_ready(self) -> int:
        """How many get() would return at once."""
        return self._full.qsize()

    def stop(self) -> None:
        """End the thread after the buffer that it is filling, and wait; a second call does nothing."""
        self._finalizer.detach()
        _stop(self._thread, self._empty, None)


def _fill_buffers(
    fill: Callable[[int, Buffer], None],
    empty: SimpleQueue[Buffer | None],
    full: SimpleQueue[Buffer | BaseException | None],
    num_fills: int | None,
) -> None:
    """Do the thread's work. No method, so that the thread keeps no Prefetcher alive that nobody uses."""
    num_filled = 0
    try:
        while num_fills is None or num_filled < num_fills:
            buffer = empty.get()
            if buffer is None:
                return
            fill(num_filled, buffer)
            num_filled += 1
            full.put(buffer)
        full.put(None)
    except BaseException as error:  # it belongs to whoever waits in get()
        full.put(error)


def _stop(thread: threading.Thread, empty: SimpleQueue[Buffer | None], timeout_s: float | None) -> None:
    while True:
        try:
            empty.get_nowait()
        except Empty:
            break
    empty.put(None)
    # The garbage collector may run the finalizer in any thread, in this one too.
    if thread is not threading.current_thread():
        thread.join(timeout_s)
