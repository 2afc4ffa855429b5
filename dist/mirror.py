"""A rank's activity in memory that another process reads: which iteration, what, in which collective call.

In the flow prototxt → graph → net → solver → communicator → snapshot every stage sets the rank's Activity, which
writes here; the supervisor (supervisor.py), a process beside the rank, reads it, also when the rank is stuck,
stopped or dead. No lock: a reading that was torn by a writing is read again.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass

# The count of writings that have begun; iteration (-1: none), doing, collective; the count of writings that are
# complete; exit code by agreement (-1: none), time-out (-1: by default).
_LAYOUT = struct.Struct("<Qq256s64sQhxxxxxxd")
_ACTIVITY = struct.Struct("<q256s64s")
_EXIT_CODE = struct.Struct("<h")
_TIMEOUT = struct.Struct("<d")
_ACTIVITY_AT, _EXIT_CODE_AT, _TIMEOUT_AT = 8, 344, 352
_BEGUN, _COMPLETE = 0, 42  # the words of 8 bytes that count; they are written and read each at one go
_NUM_READINGS, _PAUSE_S = 5, 0.001  # a writing takes a microsecond, unless its process has to wait for a core


def describe_activity(iteration: int | None, doing: str) -> str:
    """Return ``at iteration 120 while computing layer "conv1"``."""
    when = "before the first iteration" if iteration is None else f"at iteration {iteration}"
    return f"{when} while {doing}"


@dataclass(frozen=True)
class Reading:
    """What a mirror held at a moment.

    changes: how often the activity has been set so far. exit_code: that which the rank is leaving with, in agreement
    with all others; None while it works. timeout_s: the user's time-out, 0 for none; None: by default.
    """

    changes: int = 0
    iteration: int | None = None
    doing: str = "starting"
    collective: str = ""
    exit_code: int | None = None
    timeout_s: float | None = None

    def __str__(self) -> str:
        return describe_activity(self.iteration, self.doing)


class Mirror:
    """360 bytes shared by the process that makes it and its children. Writing is one rank's, cut to fit."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _LAYOUT.size)  # anonymous and shared
        self._words = memoryview(self._memory).cast("Q")
        self._changes = 0
        first = Reading()
        _LAYOUT.pack_into(self._memory, 0, 0, -1, first.doing.encode(), b"", 0, -1, -1.0)

    def write(self, iteration: int | None, doing: bytes, collective: bytes) -> None:
        """Show an activity; that is a change, also where nothing differs."""
        self._changes += 1
        self._words[_BEGUN] = self._changes
        _ACTIVITY.pack_into(
            self._memory, _ACTIVITY_AT, -1 if iteration is None else iteration, doing, collective
        )
        self._words[_COMPLETE] = self._changes

    def write_exit_code(self, exit_code: int) -> None:
        """Say that the rank is leaving with `exit_code`, as agreed by all ranks."""
        _EXIT_CODE.pack_into(self._memory, _EXIT_CODE_AT, exit_code)

    def write_timeout(self, timeout_s: float) -> None:
        """Set the time-out of the user; 0: none."""
        _TIMEOUT.pack_into(self._memory, _TIMEOUT_AT, timeout_s)

    def read(self) -> Reading:
        """Return what the mirror holds now; texts may be torn where the rank died while it wrote them."""
        for _ in range(_NUM_READINGS):
            complete = self._words[_COMPLETE]
            fields = _LAYOUT.unpack_from(self._memory)
            changes = self._words[_BEGUN]
            if complete == changes:
                break
            time.sleep(_PAUSE_S)
        _, iteration, doing, collective, _, exit_code, timeout_s = fields
        return Reading(
            changes=changes,
            iteration=None if iteration < 0 else iteration,
            doing=_text(doing),
            collective=_text(collective),
            exit_code=None if exit_code < 0 else exit_code,
            timeout_s=None if timeout_s < 0 else timeout_s,
        )


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode(errors="replace")  # a long one was cut, perhaps within a character
