"""Log lines on stderr, and one status line below them on the terminal.

Stands beside the flow prototxt → graph → net → solver → communicator → snapshot: the log's handler writes
lines here while the progress observer keeps the last line of a terminal up to date.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TextIO

from dtrain.launcher.terminal import Terminal

_ERASE = "\r\x1b[K"
_SETTLING_S = 0.05  # what a line takes, at most, from here through mpirun to the terminal


class Console:
    """Write lines and a status line, from any thread.

    The two take different ways to the terminal: lines go through stderr, under mpirun a pipe that passes on
    whole lines only; the status line is written to the terminal itself. So it is taken away before a line is
    written, and not shown again until that has arrived.

    Arguments:
        stream: where lines go, usually stderr.
        terminal: where the status line goes; None: there is none.
        clock: returns seconds on a steady clock.
    """

    def __init__(
        self, stream: TextIO, terminal: Terminal | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._terminal = terminal
        self._clock = clock
        self._is_shown = False
        self._quiet_until = 0.0
        self._lock = threading.RLock()

    @property
    def shows_status(self) -> bool:
        """Whether there is a terminal for the status line."""
        return self._terminal is not None

    def write_line(self, text: str) -> None:
        """Write `text` and a line's end."""
        with self._lock:
            self.clear_status()
            self._stream.write(f"{text}\n")
            self._stream.flush()
            self._quiet_until = self._clock() + _SETTLING_S

    def set_status(self, text: str) -> None:
        """Show `text` as the status line, cut to the terminal's width; not just after a line."""
        with self._lock:
            if self._terminal is None or self._clock() < self._quiet_until:
                return
            width = self._terminal.width()
            self._terminal.write(_ERASE + text[: max(0, width - 1)])  # a full last column would wrap
            self._is_shown = True

    def clear_status(self) -> None:
        """Take the status line away."""
        with self._lock:
            if self._terminal is not None and self._is_shown:
                self._terminal.write(_ERASE)
                self._is_shown = False
