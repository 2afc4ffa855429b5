from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.dist.launch_environment import (
    check_world_size,
    launch_id,
    launched_local_rank,
    launched_local_size,
    launched_rank,
    launched_world_size,
    launcher_of,
)

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
}
HYDRA = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
# What the shell of salloc -n 4, or an sbatch script with --ntasks 4, has: one process, not a rank.
SALLOC = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
# salloc with use_interactive_step: the shell is a step of one task, but keeps the allocation's SLURM_NTASKS.
INTERACTIVE = {**SALLOC, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}
SRUN = {
    **SALLOC,
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "2",
}
PMIX = {"PMIX_RANK": "1", "PMIX_NAMESPACE": "prterun-host-1@1"}

# environment: launcher, rank, world_size, local_rank, local_size
TABLE = {
    "nothing": ({}, None, None, None, None, None),
    "other variables": ({"PATH": "/bin", "PMI_FD": "3"}, None, None, None, None, None),
    "Open MPI": (OPEN_MPI, "Open MPI's mpirun", 3, 4, 1, 2),
    "hydra": (HYDRA, "MPICH's or Intel MPI's mpirun (hydra)", 5, 8, 1, 4),
    "shell of salloc": (SALLOC, None, None, None, None, None),
    "interactive step of salloc": (INTERACTIVE, "Slurm's srun", 0, 1, 0, None),
    "srun": (SRUN, "Slurm's srun", 2, 4, 2, None),
    "srun --mpi=pmix": ({**SRUN, **PMIX}, "Slurm's srun", 2, 4, 2, None),
    "srun on one node": ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "4"}, "Slurm's srun", 2, 4, 2, 4),
    "srun on the fourth of four nodes": (
        {**SRUN, "SLURM_STEP_TASKS_PER_NODE": "2(x2),3,1", "SLURM_NODEID": "3"},
        "Slurm's srun",
        2,
        4,
        2,
        1,
    ),
    "Open MPI inside srun": ({**SRUN, **OPEN_MPI}, "Open MPI's mpirun", 3, 4, 1, 2),
    "hydra inside salloc": ({**SALLOC, **HYDRA}, "MPICH's or Intel MPI's mpirun (hydra)", 5, 8, 1, 4),
    "prterun": (PMIX, "PMIx", 1, None, None, None),
}


@pytest.mark.parametrize(
    ("env", "name", "rank", "world_size", "local_rank", "local_size"), TABLE.values(), ids=TABLE
)
def test_launched_place_table(
    env: dict[str, str],
    name: str | None,
    rank: int | None,
    world_size: int | None,
    local_rank: int | None,
    local_size: int | None,
) -> None:
    launcher = launcher_of(env)
    assert (launcher.name if launcher else None) == name
    assert launched_rank(env) == rank
    assert launched_world_size(env) == world_size
    assert launched_local_rank(env) == local_rank
    assert launched_local_size(env) == local_size


@pytest.mark.parametrize("text", ["", "two", "2(x", "2,"])
def test_launched_local_size_not_numbers_raises(text: str) -> None:
    with pytest.raises(LaunchError, match="SLURM_STEP_TASKS_PER_NODE must be a number of ranks"):
        launched_local_size({**SRUN, "SLURM_STEP_TASKS_PER_NODE": text})


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5"])
def test_launched_rank_not_a_number_raises(text: str) -> None:
    with pytest.raises(LaunchError, match=f"OMPI_COMM_WORLD_RANK must be a whole number, got {text!r}"):
        launched_rank({**OPEN_MPI, "OMPI_COMM_WORLD_RANK": text})


@pytest.mark.parametrize(
    ("env", "world_size"), [({}, 1), (PMIX, 3), (OPEN_MPI, 4), (HYDRA, 8), (SALLOC, 1), (SRUN, 4)]
)
def test_check_world_size_fitting_passes(env: dict[str, str], world_size: int) -> None:
    check_world_size(env, world_size, "Open MPI v5.0.11", "node1")


def test_check_world_size_of_another_mpirun_names_numbers_library_variable_and_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    (tmp_path / "mpirun").touch()
    with pytest.raises(LaunchError) as raised:
        check_world_size(HYDRA, 1, "Open MPI v5.0.11", "node1")
    assert str(raised.value) == (
        "MPICH's or Intel MPI's mpirun (hydra) belongs to another MPI than the one loaded:"
        " PMI_SIZE says 8 ranks, Open MPI v5.0.11 loaded by mpi4py sees 1;"
        f" use {tmp_path}/mpirun, or set MPI4PY_LIBMPI to the libmpi.so that belongs to your mpirun"
    )


def test_check_world_size_without_mpirun_beside_python_names_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(LaunchError, match="; use the mpirun of the loaded MPI, or set MPI4PY_LIBMPI"):
        check_world_size(OPEN_MPI, 1, "MPICH 5.0.1", "node1")


def test_check_world_size_under_srun_without_pmi_advises_srun() -> None:
    with pytest.raises(LaunchError, match="SLURM_STEP_NUM_TASKS says 4 ranks.* sees 1; use srun --mpi=pmix"):
        check_world_size(SRUN, 1, "Open MPI v5.0.11", "node1")


def test_check_world_size_of_one_of_several_ranks_names_the_rank_and_the_variable() -> None:
    with pytest.raises(ClusterError) as raised:
        check_world_size({**OPEN_MPI, "OMPI_COMM_WORLD_SIZE": "5"}, 4, "Open MPI v5.0.11", "node1")
    assert str(raised.value).startswith(
        f"rank {OPEN_MPI['OMPI_COMM_WORLD_RANK']} of 4 (node1): OMPI_COMM_WORLD_SIZE must be the number of ranks,"
        " 4 as MPI sees it, got 5; "
    )


def test_launch_id_is_shared_by_the_ranks_of_a_launch_only() -> None:
    assert launch_id(PMIX, 10) == launch_id({**PMIX, "PMIX_RANK": "2"}, 11)
    assert launch_id(PMIX, 10) != launch_id({**PMIX, "PMIX_NAMESPACE": "prterun-host-2@1"}, 10)
    assert launch_id(SRUN, 10) == launch_id({**SRUN, "SLURM_PROCID": "3"}, 11)
    assert launch_id(SRUN, 10) != launch_id({**SRUN, "SLURM_STEP_ID": "1"}, 10)
    assert launch_id(SRUN, 10) != launch_id({**SRUN, "SLURM_RESTART_COUNT": "1"}, 10)
    assert launch_id(HYDRA, 10) == launch_id({**HYDRA, "PMI_RANK": "0"}, 10)
    assert launch_id(HYDRA, 10) != launch_id(HYDRA, 11)
