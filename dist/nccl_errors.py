"""What NCCL and CUDA report of a failure, in words: what it means and what to do about it.

In the flow prototxt → graph → net → solver → communicator → snapshot this serves nccl.py, whose calls report numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.topology import Topology

IN_PROGRESS = 7

_DEBUG = "run it again with NCCL_DEBUG=INFO, by which NCCL says more"

# By NCCL's number (ncclResult_t): what it means, and what to do.
_MEANINGS = {
    1: ("a call of CUDA failed in it", f"dtrain doctor looks at driver and libraries; {_DEBUG}"),
    2: (
        "a call of the operating system failed in it, for a socket or for shared memory",
        "each host must reach the others by the interface that NCCL_SOCKET_IFNAME names, and have room in /dev/shm"
        f" (df /dev/shm); {_DEBUG}",
    ),
    3: ("it failed in itself", f"look for another rank's line, else {_DEBUG}"),
    4: ("it refused an argument of the call", f"a bug of dtrain's, or ranks that disagree; {_DEBUG}"),
    5: (
        "it refused the call as a wrong use of it",
        f"each rank needs a GPU of its own and the same version of NCCL; {_DEBUG}",
    ),
    6: (
        "it lost another rank, whose process has ended or whose network is gone",
        f"look at that rank's own line; if there is none, {_DEBUG}",
    ),
    IN_PROGRESS: ("a call before this one is still in progress", _DEBUG),
    8: ("it waited for another rank for longer than it is told to", f"look at that rank; {_DEBUG}"),
}


def explain(error: Exception) -> str:
    """Return in one line what an error of NCCL's or CUDA's means, what it said itself, and what to do."""
    status = status_of(error)
    if status is None:
        return f"CUDA says {error}; the GPU, its driver or a kernel has failed: dmesg and nvidia-smi may tell more"
    meaning, fix = _MEANINGS.get(status, ("it failed", _DEBUG))
    said = f"error {status}" if isinstance(error, KeyError) else str(error)
    return f"NCCL says that {meaning} ({said}); {fix}"


def status_of(error: Exception) -> int | None:
    """Return NCCL's number for what it reported, None if that was not NCCL.

    cupy 14.2 knows the numbers up to 6; what others become is a KeyError.
    """
    if isinstance(error, KeyError):
        return int(error.args[0])
    return getattr(error, "status", None) if type(error).__name__ == "NcclError" else None


@contextmanager
def naming(cuda: Any, place: str) -> Iterator[None]:
    """Turn the errors of NCCL and CUDA, cupy.cuda's, into a ClusterError.

    place: what it begins with, "rank 2 (node1): all_reduce".
    """
    try:
        yield
    except (cuda.nccl.NcclError, cuda.runtime.CUDARuntimeError) as error:
        raise ClusterError(f"{place}: {explain(error)}") from error
    except KeyError as error:
        if not (len(error.args) == 1 and type(error.args[0]) is int):
            raise
        raise ClusterError(f"{place}: {explain(error)}") from error


def check_versions(topology: Topology, versions: Sequence[int]) -> None:
    """Raise LaunchError, the same on all ranks, unless all of them have loaded one version of NCCL.

    Ranks of several versions may wait for each other for ever. versions: each rank's, 22703 for 2.27.3.
    """
    found: dict[int, str] = {}
    for version, host in zip(versions, topology.hosts, strict=True):
        found.setdefault(version, host)
    if len(found) > 1:
        listed = " and ".join(f"{name_version(version)} on {host}" for version, host in sorted(found.items()))
        raise LaunchError(
            f"nccl: all ranks must load the same version of NCCL, got {listed}; install one on all hosts, or look at"
            " LD_LIBRARY_PATH"
        )


def name_version(number: int) -> str:
    """Return ``2.27.3`` for 22703, as NCCL counts since 2.9."""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
