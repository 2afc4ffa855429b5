"""A job that may be hurt: started under mpirun, watched until its last process is gone, and cleaned up after.

Every process of a job carries a mark in its environment, by which it is found wherever it went: ranks have process
groups of their own, and a lost one belongs to nobody's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "DTRAIN_TEST_JOB"
HANG_S = 90.0  # a job that takes longer is ended, and its test fails
LINGER_S = 5.0  # how long processes may outlive mpirun before they count as left behind


@dataclass(frozen=True)
class Ended:
    """What became of a job.

    exit_code: mpirun's, None if it had to be ended. log: what all ranks printed. ended_at: time.time() when the last
    process was gone. orphans: what was left linger_s after mpirun's end, as command lines.
    """

    exit_code: int | None
    log: str
    ended_at: float
    orphans: tuple[str, ...]


def run_job(
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    hang_s: float = HANG_S,
    linger_s: float = LINGER_S,
) -> Ended:
    """Run `command`, an mpirun, with `env` to the end of its last process."""
    mark = secrets.token_hex(8)
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**env, MARK: mark},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(hang_s)
            exit_code = process.poll()
            orphans = _wait_for_end(mark, linger_s if exit_code is not None else 0.0)
            ended_at = time.time()
        finally:
            _kill_all(mark)
            process.wait()
        log.seek(0)
        return Ended(exit_code, log.read(), ended_at, tuple(orphans))


def processes_of(mark: str) -> dict[int, str]:
    """Return process number → command line of the processes that live and carry the mark."""
    sought = f"{MARK}={mark}".encode()
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            if sought in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found[int(folder.name)] = b" ".join(words).decode(errors="replace").strip()
    return found


def _wait_for_end(mark: str, timeout_s: float) -> list[str]:
    """Wait until no process carries the mark; return the command lines of those that are left."""
    deadline = time.monotonic() + timeout_s
    num_looks = (
        0  # in a row that found none: a process that is becoming another program shows no mark for a moment
    )
    while num_looks < 2:
        left = processes_of(mark)
        num_looks = 0 if left else num_looks + 1
        if left and time.monotonic() >= deadline:
            return list(left.values())
        time.sleep(0.05)
    return []


def _kill_all(mark: str) -> None:
    while left := processes_of(mark):  # one may have started another meanwhile
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.05)
