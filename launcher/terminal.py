"""Find the terminal that shows a rank's stderr, also through mpirun, and write to it.

Stands beside the flow prototxt → graph → net → solver → communicator → snapshot. Under mpirun a rank's
stderr is a pipe; what arrives there is shown where mpirun's own stderr points, which Linux tells under
/proc.
"""

from __future__ import annotations

import contextlib
import os
import stat
import termios
from collections.abc import Iterator, Mapping
from pathlib import Path

from dtrain.dist.supervisor import launched_pid

LAUNCHER_PROGRAMS = frozenset(
    {"mpirun", "mpiexec", "mpiexec.hydra", "hydra_pmi_proxy", "orterun", "prterun", "prted"}
)
PROGRESS_VARIABLE = "DTRAIN_PROGRESS"  # "off", or the path of the terminal to use
_DEFAULT_WIDTH = 80


class Terminal:
    """A terminal to write to, without ever waiting for it: a stopped terminal must not stop training.

    Arguments:
        path: its device, such as /dev/pts/3.

    Raises:
        OSError: it can't be written, or would stop processes that write to it from the background.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            local_modes = termios.tcgetattr(self._fd)[3]
        except termios.error as error:
            raise OSError(f"{path} is no terminal") from error
        if local_modes & termios.TOSTOP:
            raise OSError(f"{path} stops processes that write to it from the background")

    def write(self, text: str) -> None:
        """Write `text` as far as the terminal takes it now."""
        # What is lost is written anew a tenth of a second later; a terminal that has gone needs nothing.
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode())

    def width(self) -> int:
        """Return the number of columns."""
        with contextlib.suppress(OSError):  # gone
            return os.get_terminal_size(self._fd).columns or _DEFAULT_WIDTH
        return _DEFAULT_WIDTH


def find_terminal(environment: Mapping[str, str], fd: int = 2) -> Terminal | None:
    """Return the terminal that shows what this process writes to `fd`; None where there is none.

    Arguments:
        environment: DTRAIN_PROGRESS overrules the search: "off", or a terminal's path.
        fd: a file descriptor; 2 is stderr.
    """
    wish = environment.get(PROGRESS_VARIABLE, "")
    path = None if wish == "off" else wish or terminal_path(fd)
    with contextlib.suppress(OSError):  # another user's, say: training goes on without a status line
        return Terminal(path) if path else None
    return None


def terminal_path(fd: int) -> str | None:
    """Return the device of the terminal behind `fd`: its own, or if `fd` is a pipe to mpirun, mpirun's."""
    if os.isatty(fd):
        return os.ttyname(fd)
    launchers = list(launchers_above(launched_pid())) if stat.S_ISFIFO(os.fstat(fd).st_mode) else []
    return terminal_link(Path(f"/proc/{launchers[-1]}/fd/{fd}")) if launchers else None


def terminal_link(link: Path) -> str | None:
    """Return where `link` points if that is a terminal's device, else None."""
    try:
        target = os.readlink(link)
    except OSError:  # another user's process
        return None
    return target if target.startswith(("/dev/pts/", "/dev/tty")) else None


def launchers_above(pid: int, proc: Path = Path("/proc")) -> Iterator[int]:
    """Yield the processes above `pid`, from its parent up, while they are programs of an MPI launcher."""
    while True:
        try:
            # The name in parentheses may itself hold spaces and parentheses.
            pid = int((proc / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
            program = (proc / str(pid) / "comm").read_text().strip()
        except OSError:  # no such process, or no /proc
            return
        if program not in LAUNCHER_PROGRAMS:
            return
        yield pid
