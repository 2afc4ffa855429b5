"""Timer: pycaffe's stopwatch."""

from __future__ import annotations

import time


class Timer:
    """Measures the time from start() to stop(). Follows caffe's benchmark.cpp (CPUTimer)."""

    def __init__(self) -> None:
        self._started_s: float | None = None
        self._elapsed_s = 0.0

    def start(self) -> None:
        """Measure from now on; does nothing while it runs."""
        if self._started_s is None:
            self._started_s = time.perf_counter()

    def stop(self) -> None:
        """Measure until now; does nothing unless it runs."""
        if self._started_s is not None:
            self._elapsed_s = time.perf_counter() - self._started_s
            self._started_s = None

    @property
    def ms(self) -> float:
        """Milliseconds between start and stop; a timer that runs is stopped. 0 if it was never started."""
        self.stop()
        return self._elapsed_s * 1e3
