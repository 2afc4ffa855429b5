"""A few threads that share the items of a batch among them: what decodes images on all cores.

Beside the batch readers. Decoding, resizing and numpy's loops let go of the interpreter, so that threads do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


class Workers:
    """Run a function on each of some numbers, in `num_threads` threads of which the caller's is one.

    Threads are started when they are first needed and end with close(), or when nobody holds the Workers.
    """

    def __init__(self, num_threads: int = 1) -> None:
        assert num_threads >= 1, f"workers need at least 1 thread, got {num_threads}"
        self.num_threads = num_threads
        self._pool = ThreadPoolExecutor(num_threads - 1, "worker") if num_threads > 1 else None

    def run(self, work: Callable[[int], None], count: int) -> None:
        """Call work(0) … work(count − 1), each once, in any order, and return when all are done.

        Raises what `work` raised for the least number; what has not begun by then is left out.
        """
        # Each thread takes the next number when it is free, so that no thread waits for a slow item.
        numbers = iter(range(count))
        failures: dict[int, Exception] = {}
        helpers = [
            self._pool.submit(_take_turns, work, numbers, failures)
            for _ in range(min(self.num_threads, count) - 1)
            if self._pool is not None
        ]
        try:
            _take_turns(work, numbers, failures)
        finally:
            for helper in helpers:
                helper.result()
        if failures:
            raise failures[min(failures)]

    def close(self) -> None:
        """End the threads; a second call does nothing."""
        if self._pool is not None:
            self._pool.shutdown()


def _take_turns(work: Callable[[int], None], numbers: Iterator[int], failures: dict[int, Exception]) -> None:
    for number in numbers:
        if failures:
            return
        try:
            work(number)
        except Exception as error:  # it belongs to the caller of run()
            failures[number] = error
