"""The mpirun that belongs to this Python, its environment and its command line.

Stands before the flow prototxt → graph → net → solver → communicator → snapshot: it starts the ranks in
which the flow runs.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from dtrain.dist.errors import LaunchError

_SIBLINGS = "devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list"


def find_mpirun(python: str = sys.executable) -> str:
    """Return the mpirun beside `python`, or else the one that the PATH finds.

    Raises:
        LaunchError: there is none.
    """
    beside = Path(python).with_name("mpirun")
    if os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which("mpirun")
    if found is None:
        raise LaunchError(
            f"mpirun must be beside {python} or on the PATH, found none; pip install 'dtrain[mpi]'"
        )
    return found


def mpirun_command(mpirun: str, num_ranks: int, arguments: Sequence[str]) -> list[str]:
    """Return the command that runs dtrain with `arguments` on `num_ranks` ranks of this host."""
    return [mpirun, "-np", str(num_ranks), sys.executable, "-m", "dtrain", *arguments]


def mpirun_settings(num_ranks: int, num_cores: int, is_root: bool) -> dict[str, str]:
    """Return the variables that Open MPI's mpirun wants in order to start here; others ignore them.

    As root it asks for consent. It counts a core as one slot and refuses more ranks than slots, unless told
    to oversubscribe; ranks that wait must then give way, or those that work crawl.

    Arguments:
        num_ranks: ranks on this host.
        num_cores: cores of this host, hyperthreads not counted.
        is_root: whether the user is root.
    """
    settings = {}
    if is_root:
        settings["OMPI_ALLOW_RUN_AS_ROOT"] = settings["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    if num_ranks > num_cores:
        settings["PRTE_MCA_rmaps_default_mapping_policy"] = ":oversubscribe"
        settings["OMPI_MCA_mpi_yield_when_idle"] = "1"
    return settings


def mpirun_environment(environment: Mapping[str, str], num_ranks: int) -> dict[str, str]:
    """Return `environment` with what mpirun wants to start `num_ranks` here; the user's settings win."""
    return {**mpirun_settings(num_ranks, num_physical_cores(), os.geteuid() == 0), **environment}


def num_physical_cores(sys_folder: Path = Path("/sys")) -> int:
    """Return the number of this host's cores, two hyperthreads of a core counted once."""
    return count_cores(path.read_text() for path in sys_folder.glob(_SIBLINGS)) or os.cpu_count() or 1


def count_cores(siblings: Iterable[str]) -> int:
    """Return the number of cores, given for each logical processor the list of those on the same core."""
    return len({text.strip() for text in siblings})
