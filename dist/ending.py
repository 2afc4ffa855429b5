"""How a rank's process ended, in the words of the one line that is printed for the job.

In the flow prototxt → graph → net → solver → communicator → snapshot the supervisor (supervisor.py) says this of a
rank that could not say anything itself, and failure.py of one that could.
"""

from __future__ import annotations

import os
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path

from dtrain.dist.errors import EXIT_BUG, exit_code_of


@dataclass(frozen=True)
class Place:
    """Which rank, where. world_size: None where the launcher does not tell."""

    rank: int
    world_size: int | None
    host: str

    def __str__(self) -> str:
        """Return ``rank 2 of 4 (node1)``."""
        of = "" if self.world_size is None else f" of {self.world_size}"
        return f"rank {self.rank}{of} ({self.host})"


@dataclass(frozen=True)
class Ending:
    """what: reads after the rank, "was killed by SIGKILL". hint: the likely cause, or what to do; may be empty."""

    what: str
    hint: str = ""

    def line(self, place: Place, activity: str) -> str:
        """Return the line for the job. activity: what str(Activity) gives."""
        return f"{place} {self.what} {activity}" + (f"; {self.hint}" if self.hint else "")


def ending_of(status: int, peak_bytes: int, num_killed_for_memory: int) -> Ending:
    """Return how a process with the wait status `status` ended, without having said why.

    Arguments:
        peak_bytes: the most memory that it had in use.
        num_killed_for_memory: processes that the kernel killed on this host for want of memory meanwhile.
    """
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        hint = memory_hint(peak_bytes, num_killed_for_memory) if number == signal.SIGKILL else ""
        return Ending(f"was killed by {signal_name(number)}", hint)
    code = os.waitstatus_to_exitcode(status)
    return Ending(f"ended with exit code {code}", "something it called ended the process")


def memory_hint(peak_bytes: int, num_killed_for_memory: int) -> str:
    """Return what a SIGKILL may have to do with memory."""
    had = f"it had used up to {round(peak_bytes / 2**20):,} MiB of memory"
    if num_killed_for_memory > 0:
        return f"{had}, and the kernel's out-of-memory killer was at work on this host; give each rank more memory"
    return f"{had}; the kernel's out-of-memory killer or a limit of the cluster's is a usual cause"


def signal_name(number: int) -> str:
    """Return SIGKILL for 9, ``signal 40`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def count_killed_for_memory(path: str | os.PathLike[str] = "/proc/vmstat") -> int:
    """Return how many processes the kernel has killed on this host for want of memory; 0 where it cannot be known."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def failure_line(place: Place, activity: str, error: BaseException) -> str:
    """Return the line for a rank that an exception ended. activity: what str(Activity) gives."""
    return f"{place} failed {activity}: {cause_of(error)}"


def cause_of(error: BaseException) -> str:
    """Return in one line why a rank failed; for a bug with the exception's type and where it was raised."""
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (SIGINT)"
    said = "; ".join(str(error).splitlines())
    if exit_code_of(error) != EXIT_BUG:
        return said
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}{': ' + said if said else ''}{place}"
