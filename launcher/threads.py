"""How many threads each rank computes with; decided before numpy is imported, which reads it once.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: the first thing that the
command line does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping

from dtrain.dist.launch_environment import launched_local_size

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MARK = "DTRAIN_SET"  # names the variables that dtrain has set


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


def usable_cores(process: int = 0) -> int:
    """Return the number of cores that a process (0: this one) may run on; all of them where none can tell."""
    try:
        return len(os.sched_getaffinity(process))
    except (AttributeError, OSError):  # macOS does not have it; a parent may be gone
        return os.cpu_count() or 1


def thread_settings(environment: Mapping[str, str], num_threads: int) -> dict[str, str]:
    """Return the variables to set: those that the user has not set, and the mark that says which these are.

    The user's OMP_NUM_THREADS speaks for the others. What is marked was set by a dtrain further up (`dtrain
    demo` starts mpirun), for itself, and does not bind this process.
    """
    marked = environment.get(_MARK, "").split(",")
    users = {
        name: environment[name] for name in THREAD_VARIABLES if name in environment and name not in marked
    }
    value = users.get("OMP_NUM_THREADS", str(num_threads))
    settings = {name: value for name in THREAD_VARIABLES if name not in users}
    return {**settings, _MARK: ",".join(settings)}


def set_num_threads(environment: MutableMapping[str, str]) -> None:
    """Give this rank its fair share of the host's cores; call it before numpy is imported.

    The parent of a rank is its launcher, which is not bound: its cores are those of all ranks together.
    """
    available = max(usable_cores(), usable_cores(os.getppid()))
    num_threads = fair_num_threads(usable_cores(), available, launched_local_size(environment) or 1)
    environment.update(thread_settings(environment, num_threads))
