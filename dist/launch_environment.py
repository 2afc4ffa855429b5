"""What an MPI launcher left in the environment: was this process started as a rank, and as which one?

In the flow prototxt → graph → net → solver → communicator → snapshot this decides which communicator is made,
before MPI is loaded, and afterwards whether mpirun and the loaded MPI belong together. Pure functions of a
mapping.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dtrain.dist.errors import ClusterError, LaunchError

Environment = Mapping[str, str]


@dataclass(frozen=True)
class Launcher:
    """The variables by which one kind of launcher tells a process its place; empty where it has none."""

    name: str
    rank: str
    world_size: str
    local_rank: str
    local_size: str
    node: str = ""  # where local_size lists the ranks of all nodes: the number of this one


# The first row whose `rank` and `world_size` are both set counts. Slurm comes after the mpiruns, which may
# run inside a Slurm job and then inherit its variables. Slurm's row takes the step's size rather than
# SLURM_NTASKS: the shells that salloc and sbatch start have SLURM_PROCID=0 and SLURM_NTASKS=N without being
# one of N ranks; only srun sets SLURM_STEP_NUM_TASKS, and to 1 for an interactive shell. PMIx comes last,
# since it does not tell the world's size.
LAUNCHERS: tuple[Launcher, ...] = (
    Launcher(
        "Open MPI's mpirun",
        rank="OMPI_COMM_WORLD_RANK",
        world_size="OMPI_COMM_WORLD_SIZE",
        local_rank="OMPI_COMM_WORLD_LOCAL_RANK",
        local_size="OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    Launcher(
        "MPICH's or Intel MPI's mpirun (hydra)",
        rank="PMI_RANK",
        world_size="PMI_SIZE",
        local_rank="MPI_LOCALRANKID",
        local_size="MPI_LOCALNRANKS",
    ),
    Launcher(
        "Slurm's srun",
        rank="SLURM_PROCID",
        world_size="SLURM_STEP_NUM_TASKS",
        local_rank="SLURM_LOCALID",
        local_size="SLURM_STEP_TASKS_PER_NODE",
        node="SLURM_NODEID",
    ),
    Launcher("PMIx", rank="PMIX_RANK", world_size="", local_rank="", local_size=""),
)


def launcher_of(env: Environment) -> Launcher | None:
    """Return the launcher that started this process as a rank, None if there is none."""
    for launcher in LAUNCHERS:
        if launcher.rank in env and (not launcher.world_size or launcher.world_size in env):
            return launcher
    return None


def launched_rank(env: Environment) -> int | None:
    """Return the rank that the launcher gave this process, None if it was not launched as a rank."""
    launcher = launcher_of(env)
    return _number(env, launcher.rank) if launcher else None


def launched_world_size(env: Environment) -> int | None:
    """Return the number of ranks that were launched, None if not launched or not told."""
    launcher = launcher_of(env)
    return _number(env, launcher.world_size) if launcher else None


def launched_local_rank(env: Environment) -> int | None:
    """Return this process' number among the ranks of its node, None if not launched or not told."""
    launcher = launcher_of(env)
    return _number(env, launcher.local_rank) if launcher else None


def launched_local_size(env: Environment) -> int | None:
    """Return the number of ranks of this node, None if not launched or not told."""
    launcher = launcher_of(env)
    if launcher is None or launcher.local_size not in env:
        return None
    sizes = _expand(launcher.local_size, env[launcher.local_size])
    node = _number(env, launcher.node) or 0
    return sizes[node] if node < len(sizes) else None


def launch_id(env: Environment, parent_pid: int) -> str:
    """Return a text that all ranks of one launch on one host share, as good as it can be had without MPI.

    It names the launch by its PMIx namespace or Slurm step; otherwise by the process that started the ranks,
    so that a shell between mpirun and each rank makes their texts differ.
    """
    if "PMIX_NAMESPACE" in env:
        return f"pmix {env['PMIX_NAMESPACE']}"
    if "SLURM_STEP_ID" in env:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "slurm " + ".".join(env.get(name, "") for name in names)
    return f"parent {parent_pid}"


def check_world_size(env: Environment, world_size: int, mpi_library: str, host: str) -> None:
    """Check that the MPI that was loaded sees as many ranks as the launcher started.

    An mpirun of another MPI starts N processes of which each believes to be the only rank: N jobs that
    overwrite each other's files in silence.

    Arguments:
        world_size: the size of the loaded MPI's world.
        mpi_library: the name and version of the loaded MPI.
        host: this one's name.

    Raises:
        LaunchError: this process is the only one that its MPI knows of, and so are all others.
        ClusterError: MPI knows of several ranks; something is odd about this one.
    """
    launcher = launcher_of(env)
    expected = launched_world_size(env)
    if launcher is None or expected is None or expected == world_size:
        return
    if world_size > 1:
        raise ClusterError(
            f"rank {launched_rank(env)} of {world_size} ({host}): {launcher.world_size} must be the number of ranks,"
            f" {world_size} as MPI sees it, got {expected}; start all ranks by one {launcher.name} and leave its"
            " variables as they are"
        )
    raise LaunchError(
        f"{launcher.name} belongs to another MPI than the one loaded: {launcher.world_size} says {expected}"
        f" rank{'s' * (expected != 1)}, {mpi_library} loaded by mpi4py sees {world_size}; {_fix(launcher)}"
    )


def _fix(launcher: Launcher) -> str:
    if launcher.rank.startswith("SLURM_"):
        return "use srun --mpi=pmix (Open MPI) or srun --mpi=pmi2 (MPICH), see srun --mpi=list"
    beside = Path(sys.executable).with_name("mpirun")
    use = f"use {beside}" if beside.exists() else "use the mpirun of the loaded MPI"
    return f"{use}, or set MPI4PY_LIBMPI to the libmpi.so that belongs to your mpirun"


def _number(env: Environment, variable: str) -> int | None:
    if not variable or variable not in env:
        return None
    text = env[variable]
    if not text.isdecimal():
        raise LaunchError(
            f"environment: {variable} must be a whole number, got {text!r}; the launcher sets it"
        )
    return int(text)


def _expand(variable: str, text: str) -> list[int]:
    """Return a whole number, or what Slurm writes as ``2(x3),1`` for several nodes: 2, 2, 2, 1."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise LaunchError(
                f"environment: {variable} must be a number of ranks, or one per node, got {text!r}; "
                "the launcher sets it"
            )
        counts += [int(match[1])] * int(match[2] or 1)
    return counts
