"""Where a rank that is stuck stands: the line of Python it is in, asked for by another process.

In the flow prototxt → graph → net → solver → communicator → snapshot the supervisor (supervisor.py) asks this of a
rank that does nothing new, before it ends it. The answer is given within a signal, so that a loop in a library
or one that holds Python's lock gives it too.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from pathlib import Path

PROBE_SIGNAL = signal.SIGUSR2
_WAIT_S = 0.5
_LOOK_S = 0.02
_FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)  # as faulthandler writes it


class StackProbe:
    """A file in memory, shared by the process that makes it and its children. Raises OSError: there is none."""

    def __init__(self) -> None:
        self._file = os.fdopen(os.memfd_create("dtrain-stack"), "w+b", buffering=0)

    def answer(self) -> None:
        """Let this process answer from now on, for the thread that has the signal: the main one."""
        faulthandler.register(PROBE_SIGNAL, self._file, all_threads=False)

    def ask(self, pid: int) -> str:
        """Return where the process stands, ``conv.py:123 in forward``; "" if it does not answer."""
        os.kill(pid, PROBE_SIGNAL)
        deadline = time.monotonic() + _WAIT_S
        place = ""
        while not place and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
            size = os.fstat(self._file.fileno()).st_size
            place = innermost(os.pread(self._file.fileno(), size, 0).decode(errors="replace"))
        return place


def innermost(text: str) -> str:
    """Return the innermost frame of a stack as faulthandler writes it, ``conv.py:123 in forward``; "" for none."""
    frame = _FRAME.search(text)
    return f"{Path(frame[1]).name}:{frame[2]} in {frame[3]}" if frame else ""
