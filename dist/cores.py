"""How many cores a rank may compute with: those that are its own, or its share of its host's.

In the flow prototxt → graph → net → solver → communicator → snapshot this stands beside topology.py: ranks of one
host share its cores as they share its links. The launcher tells the libraries (launcher/threads.py), data layers
decode on so many threads, and the updater shares an update among them. What the kernel says is read here; what
follows from it are pure functions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dtrain.dist.launch_environment import launched_local_size, launcher_of

Environment = Mapping[str, str]
Read = Callable[[str], str]  # the text of a file below /sys/fs/cgroup, "" where there is none

# How many processors Slurm gave the job, or the step, on this node. The daemon that starts its ranks may have all.
_ALLOCATED = "SLURM_CPUS_ON_NODE"


@dataclass(frozen=True)
class Cores:
    """What a process may use: the processors of its affinity, and so many processors' time (None: all their time)."""

    num_processors: int
    quota: float | None = None

    @property
    def count(self) -> int:
        """How many threads can compute at once: whole processors, at least 1."""
        return max(1, min(self.num_processors, int(self.quota or self.num_processors)))

    def __str__(self) -> str:
        """Return the processors and, if there is one, the quota."""
        text = f"{self.num_processors} processor{'s' * (self.num_processors != 1)}"
        return text if self.quota is None else f"{text}, of their time that of {self.quota:g}"


@dataclass(frozen=True)
class Share:
    """A rank's part of its host. own: what it may use. together: what all ranks of the host may, of one launch."""

    own: Cores
    together: Cores
    num_ranks: int = 1

    @property
    def num_cores(self) -> int:
        """How many threads the rank is to compute with."""
        return fair_num_threads(self.own.count, self.together.count, self.num_ranks)

    def __str__(self) -> str:
        """Return the number and why it is that."""
        ranks = f"the {self.num_ranks} ranks" if self.num_ranks > 1 else "all ranks"
        others = f"; {ranks} of this host together {self.together}"
        is_alone = self.num_ranks == 1 and self.together == self.own
        return f"{self.num_cores}: this rank may use {self.own}{'' if is_alone else others}"


def fair_num_threads(usable: int, available: int, ranks_on_host: int) -> int:
    """Return the number of threads of one rank: min(usable, available / ranks_on_host), at least 1.

    mpirun binds ranks to fewer cores than the job has (to one each for up to two ranks). Such a binding has
    shared out the cores already, which is why the smaller of the two counts and not a share of `usable`.

    Arguments:
        usable: cores that this process may run on.
        available: cores that all ranks of this host together may run on.
        ranks_on_host: ranks of this job on this host, >= 1.
    """
    return max(1, min(usable, available // ranks_on_host))


def num_threads_of(env: Environment) -> int:
    """Return how many threads this process computes with: OMP_NUM_THREADS, or else its share of the host."""
    given = env.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) else own_share(env).num_cores


def own_share(env: Environment) -> Share:
    """Return this process's share of its host; `env` says whether and how it was launched as a rank.

    What the launcher may use, which is not bound, is what all ranks together may.
    """
    own, num_ranks = look_at(0), launched_local_size(env) or 1
    return share_of(env, own, own if num_ranks == 1 else look_at(launcher_pid(env, os.getppid())))


def share_of(env: Environment, own: Cores, of_launcher: Cores) -> Share:
    """Return the share of a rank that may use `own`, started by a process that may use `of_launcher`."""
    allocated = env.get(_ALLOCATED, "")
    together = of_launcher if of_launcher.count >= own.count else own
    if launcher_of(env) is not None and allocated.isdecimal():
        together = Cores(max(1, min(together.num_processors, int(allocated))), together.quota)
    return Share(own, together, launched_local_size(env) or 1)


def look_at(pid: int, proc: str | os.PathLike[str] = "/proc", cgroups: str = "/sys/fs/cgroup") -> Cores:
    """Return what the process `pid` (0: this one) may use; all processors where nobody can tell."""
    try:
        num_processors = len(os.sched_getaffinity(pid))
    except (AttributeError, OSError):  # macOS does not have it; the process may be gone
        num_processors = os.cpu_count() or 1
    groups = _text_of(Path(proc, str(pid or "self"), "cgroup"))
    return Cores(num_processors, quota_of(groups, lambda path: _text_of(Path(cgroups, path))))


def quota_of(groups: str, read: Read) -> float | None:
    """Return the least time that the cgroups of a process and those around them give it, in processors.

    A container sees its own group at the root of /sys/fs/cgroup, whatever /proc says its path is: it counts as one
    around. Versions 2 (cpu.max: "QUOTA PERIOD" or "max PERIOD", in µs) and 1 (cpu.cfs_quota_us, -1 for none).

    Arguments:
        groups: the text of /proc/PID/cgroup, lines HIERARCHY:CONTROLLERS:PATH.
        read: gives the text of a file below /sys/fs/cgroup, "" where there is none.
    """
    quotas = []
    for line in groups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        deepest = PurePosixPath("cpu" if controllers else "") / path.lstrip("/")
        for folder in (deepest, *deepest.parents):
            if controllers:
                words = [read(str(folder / f"cpu.cfs_{word}_us")) for word in ("quota", "period")]
            else:
                words = read(str(folder / "cpu.max")).split()
            quotas.append(_quota(*words) if len(words) == 2 else None)
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota(quota: str, period: str) -> float | None:
    """Return the ratio of two texts, None if they are none or mean that there is no limit."""
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", and what is no cgroup's file
        return None


def launcher_pid(env: Environment, parent: int, proc: str | os.PathLike[str] = "/proc") -> int:
    """Return the process that launched this rank: the nearest above whose environment names no rank.

    Between it and the rank may be shells, and the rank's supervisor. A process that may not be looked into, since it
    belongs to another user, is a launcher's daemon.

    Arguments:
        env: this process's environment.
        parent: the process that started this one.
    """
    launcher = launcher_of(env)
    pid = parent
    while launcher is not None and pid > 1 and _has(Path(proc, str(pid)), launcher.rank):
        above = _parent_of(Path(proc, str(pid)))
        if above is None:
            break
        pid = above
    return pid


def _has(process: Path, variable: str) -> bool:
    """Return whether a process was started with the variable in its environment."""
    entries = _text_of(process / "environ").split("\0")
    return any(entry.startswith(f"{variable}=") for entry in entries)


def _parent_of(process: Path) -> int | None:
    # The name in parentheses may itself hold spaces and parentheses.
    fields = _text_of(process / "stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def _text_of(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
