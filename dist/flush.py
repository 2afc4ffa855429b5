"""Flushing what a rank has written before it ends without Python's own clean-up.

In the flow prototxt → graph → net → solver → communicator → snapshot every communicator's `abort` needs it,
or the line that says why a job ended would be lost in a buffer.
"""

from __future__ import annotations

import contextlib
import sys


def flush_output() -> None:
    """Flush stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        # A reader that has gone away (a closed pipe) must not keep the job from ending.
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
