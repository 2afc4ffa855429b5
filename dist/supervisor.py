"""The supervisor of a rank: a small process that sees the rank fail, in whatever way, and ends the job.

Stands around the flow prototxt → graph → net → solver → communicator → snapshot: the launcher forks before numpy and
MPI are loaded; the child becomes the rank, the parent, which is what mpirun started and watches, stays here.
Of a rank that is killed, stopped or stuck it says the one line and exits with 3; otherwise it exits with
the rank's own code. It takes two looks a second, and nothing of the rank's time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dtrain.dist.claim import GRACE_S, Claim
from dtrain.dist.ending import Ending, Place, count_killed_for_memory, ending_of
from dtrain.dist.errors import EXIT_CLUSTER, EXIT_STOPPED
from dtrain.dist.flush import flush_output
from dtrain.dist.job_end import END_SIGNAL, end_job
from dtrain.dist.launch_environment import launch_id, launched_rank, launched_world_size
from dtrain.dist.mirror import Mirror, Reading
from dtrain.dist.stack_probe import StackProbe
from dtrain.dist.watchdog import Watchdog

LOOK_S = 0.5
_REAP_S = 5.0  # a killed rank may hang in a driver or a file system; the job must not
_PR_SET_PDEATHSIG = 1

# What the rank must hear of; whatever else comes ends the supervisor, and the kernel then the rank.
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT)
_AWAITED = {*_PASSED_ON, signal.SIGCHLD, signal.SIGTSTP, signal.SIGCONT, END_SIGNAL}


@dataclass(frozen=True)
class Watched:
    """What a rank knows of the process that watches it."""

    place: Place
    mirror: Mirror
    probe: StackProbe
    supervisor_pid: int
    launcher_pid: int


_watched: Watched | None = None  # of this process, once it is a rank under a supervisor


def watched() -> Watched | None:
    """Return who watches this process, None if nobody does."""
    return _watched


def launched_pid() -> int:
    """Return the process that the launcher started as this rank: the supervisor, or else this one."""
    return _watched.supervisor_pid if _watched else os.getpid()


def launch_claim() -> Claim:
    """Return the claim to speak for this launch, one and the same for the ranks of a host and their supervisors."""
    return Claim(launch_id(os.environ, _watched.launcher_pid if _watched else os.getppid()))


def can_supervise(environment: Mapping[str, str]) -> bool:
    """Return whether this process is one of several ranks, and may still be forked to watch over it.

    Not once MPI is loaded or threads run, as in a program that calls the command line's `main` late.
    """
    return (
        sys.platform == "linux"
        and _watched is None
        and launched_rank(environment) is not None
        and launched_world_size(environment) != 1
        and "mpi4py.MPI" not in sys.modules
        and threading.active_count() == 1
    )


def supervise(environment: Mapping[str, str]) -> None:
    """Fork; return in the child, which is the rank from now on. The parent never returns: it watches and exits."""
    global _watched
    flush_output()
    place = Place(launched_rank(environment) or 0, launched_world_size(environment), os.uname().nodename)
    found = Watched(place, Mirror(), StackProbe(), os.getpid(), os.getppid())
    claim = launch_claim()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    pid = os.fork()
    if pid == 0:
        _watched = found
        become_rank(found.supervisor_pid)
        found.probe.answer()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return
    try:
        Supervisor(pid, found, claim, environment).run()
    except BaseException:  # a bug here must not leave a rank without a supervisor: the kernel ends it then
        sys.excepthook(*sys.exc_info())
    os._exit(EXIT_CLUSTER)


def become_rank(supervisor_pid: int) -> None:
    """Let this process die with its supervisor, and hear signals from it alone."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != supervisor_pid:  # it died before the kernel knew
        os._exit(EXIT_CLUSTER)


def announce_exit(exit_code: int) -> None:
    """Tell the supervisor that this rank is leaving with `exit_code`, having said all there is to say."""
    if _watched:
        _watched.mirror.write_exit_code(exit_code)


def leave(exit_code: int) -> NoReturn:
    """End this watched process at once, having said why; no clean-up code runs, which might wait for lost ranks."""
    flush_output()
    os._exit(exit_code)


class Supervisor:
    """Watches the rank `pid`. Every path through `run` ends this process, and with it the rank."""

    def __init__(self, pid: int, found: Watched, claim: Claim, environment: Mapping[str, str]) -> None:
        self._pid = pid
        self._found = found
        self._claim = claim
        self._environment = environment
        self._num_killed_for_memory = count_killed_for_memory()
        self._passed_on: set[int] = set()
        self._has_ended = False  # and its number may be another process' soon
        self._watchdog = Watchdog(time.monotonic())

    def run(self) -> NoReturn:
        """Pass signals on and look at the rank until it has ended or must."""
        signal.signal(
            signal.SIGCHLD, signal.SIG_DFL
        )  # a launcher may have it ignored: then nobody could wait
        while True:
            info = signal.sigtimedwait(_AWAITED, LOOK_S)
            if info is not None:
                self._handle(info.si_signo)
            ended, status, usage = os.wait4(self._pid, os.WNOHANG)
            if ended:
                self._has_ended = True
                self._after(status, usage.ru_maxrss * 1024)
            if os.getppid() != self._found.launcher_pid:
                self._kill()
                os._exit(EXIT_CLUSTER)  # nobody is left to tell
            ending = self._watchdog.look(time.monotonic(), self._found.mirror.read(), state_of(self._pid))
            if ending:
                self._end(ending, asks=True)

    def _handle(self, number: int) -> None:
        if number == END_SIGNAL or (number == signal.SIGTERM and self._claim.is_taken()):
            self._kill()  # the job has failed, and somebody has said so
            os._exit(EXIT_CLUSTER)
        if number == signal.SIGTSTP:
            os.kill(self._pid, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
        elif number == signal.SIGCONT:
            os.kill(self._pid, signal.SIGCONT)
        elif number in _PASSED_ON:
            self._passed_on.add(number)
            os.kill(self._pid, number)

    def _after(self, status: int, peak_bytes: int) -> NoReturn:
        """Exit as the rank did with the wait status `status`."""
        reading = self._found.mirror.read()
        agreed = reading.exit_code
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        by_request = killed_by in self._passed_on
        if agreed is not None and (by_request or agreed == os.waitstatus_to_exitcode(status)):
            self._leave(agreed)
        num_killed = count_killed_for_memory() - self._num_killed_for_memory
        ending = ending_of(status, peak_bytes, num_killed)
        if killed_by is not None and by_request:
            time.sleep(GRACE_S)  # a launcher that is ending the job ends this process now
            self._end(ending, 128 + killed_by)
        if reading.collective and killed_by is None:
            time.sleep(
                GRACE_S
            )  # an MPI that has lost another rank ended it; that rank's supervisor knows why
        self._end(ending)

    def _end(self, ending: Ending, exit_code: int = EXIT_CLUSTER, asks: bool = False) -> NoReturn:
        """Say how the rank ended, or ends now, and end the job. asks: it may be able to tell where it stands."""
        if self._claim.take():
            self._say(ending, self._found.mirror.read(), self._found.probe.ask(self._pid) if asks else "")
            self._kill()
        else:
            self._kill()
            time.sleep(GRACE_S)
        self._leave(exit_code)

    def _say(self, ending: Ending, reading: Reading, frame: str) -> None:
        activity = f"{reading} ({frame})" if frame else str(reading)
        line = ending.line(self._found.place, activity)
        with contextlib.suppress(OSError):  # stderr may be gone
            os.write(2, f"{line}\n".encode(errors="replace"))

    def _leave(self, exit_code: int) -> NoReturn:
        if exit_code not in (0, EXIT_STOPPED):
            end_job(self._environment, exit_code)
        os._exit(exit_code)

    def _kill(self) -> None:
        """Kill the rank and whatever it started, and wait for its end, but not for ever."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)
        if self._has_ended:
            return
        with contextlib.suppress(ProcessLookupError):  # it may not have its group yet
            os.kill(self._pid, signal.SIGKILL)
        deadline = time.monotonic() + _REAP_S
        with contextlib.suppress(ChildProcessError):
            while time.monotonic() < deadline and not os.wait4(self._pid, os.WNOHANG)[0]:
                signal.sigtimedwait({signal.SIGCHLD}, LOOK_S)


def state_of(pid: int, proc: str | os.PathLike[str] = "/proc") -> str:
    """Return the letter of a process's state, "T" for stopped; "" where it cannot be read."""
    try:
        # The name in parentheses may itself hold spaces and parentheses.
        return (Path(proc) / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
