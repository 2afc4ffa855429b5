"""How many threads each rank computes with; decided before numpy is imported, which reads it once.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: the first thing that the
command line does.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from dtrain.dist.cores import own_share

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# OpenMP's threads spin for milliseconds while they wait, on cores that the BLAS's threads, those that read and
# others on the machine could compute on. Those that spin for a tenth of one and then sleep are still awake when the
# next layer begins (LeNet on 2 threads of an idle machine: 9.6 ms an iteration; 10.7 where they spin for a tenth of
# that again), and leave the core to others where these have more to do (25 ms beside two busy processes, as asleep
# at once and as with 1000; 44 with 100000). Who has set one of these has chosen.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_BRIEFLY = {"GOMP_SPINCOUNT": "10000"}
_MARK = "DTRAIN_SET"  # names the variables that dtrain has set


def thread_settings(environment: Mapping[str, str], num_threads: int) -> dict[str, str]:
    """Return the variables to set: those that the user has not set, and the mark that says which these are.

    The user's OMP_NUM_THREADS speaks for the other numbers. What is marked was set by a dtrain further up (`dtrain
    demo` starts mpirun), for itself, and does not bind this process.
    """
    users = {
        name: environment[name] for name in (*THREAD_VARIABLES, *_WAITING) if _is_user_s(name, environment)
    }
    value = users.get("OMP_NUM_THREADS", str(num_threads))
    settings = {name: value for name in THREAD_VARIABLES if name not in users}
    if not any(name in users for name in _WAITING):
        settings |= _BRIEFLY
    return {**settings, _MARK: ",".join(settings)}


def set_num_threads(environment: MutableMapping[str, str]) -> None:
    """Give this rank its fair share of the host's cores; call it before numpy is imported."""
    environment.update(thread_settings(environment, own_share(environment).num_cores))


def describe_threads(environment: Mapping[str, str]) -> str:
    """Return what `set_num_threads` chose and why, and which variables are the user's own."""
    rows = [
        f"{name}={environment[name]}{' (set by the user)' if _is_user_s(name, environment) else ''}"
        for name in (*THREAD_VARIABLES, *_WAITING)
        if name in environment
    ]
    return "; ".join([str(own_share(environment)), ", ".join(rows)])


def _is_user_s(name: str, environment: Mapping[str, str]) -> bool:
    """Return whether a variable is set, and not by dtrain."""
    return name in environment and name not in environment.get(_MARK, "").split(",")
