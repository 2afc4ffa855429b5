"""How launchers are told: the choice among them, and what they get; real launchers are in test_supervisor.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dtrain.dist.job_end import end_job, is_hydra, is_slurm_step, scancel_command

OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
HYDRA = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "9", "MPI_LOCALRANKID": "1"}
STEP = {"SLURM_JOB_ID": "41", "SLURM_STEP_ID": "3", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
PMI2 = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_FD": "9"}


@pytest.mark.parametrize(
    ("environment", "hydra", "slurm"),
    [
        ({}, False, False),
        (OPEN_MPI, False, False),
        (HYDRA, True, False),
        (STEP, False, True),
        (STEP | PMI2, False, True),  # srun --mpi=pmi2
        (STEP | {"PMIX_RANK": "1"}, False, True),  # srun --mpi=pmix
        (STEP | OPEN_MPI, False, False),  # mpirun within a Slurm job: the step is that of its daemons
        (STEP | HYDRA, True, False),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, False, False),
    ],
    ids=str,
)
def test_launcher_kind_from_the_environment(environment: dict[str, str], hydra: bool, slurm: bool) -> None:
    assert (is_hydra(environment), is_slurm_step(environment)) == (hydra, slurm)


def test_end_job_of_hydra_sends_abort_with_the_exit_code() -> None:
    reader, writer = os.pipe()
    end_job({**HYDRA, "PMI_FD": str(writer)}, 3)
    assert os.read(reader, 100) == b"cmd=abort exitcode=3\n"
    os.close(reader)
    os.close(writer)


def test_end_job_of_a_launcher_that_has_gone_returns() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    end_job({**HYDRA, "PMI_FD": str(writer)}, 3)
    os.close(writer)
    end_job({**HYDRA, "PMI_FD": str(writer)}, 3)


def test_end_job_of_a_slurm_step_signals_its_supervisors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scancel = tmp_path / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scancel.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    end_job(STEP, 3)
    assert (tmp_path / "asked").read_text() == "--signal=USR2 41.3\n"
    assert scancel_command(STEP) == ["scancel", "--signal=USR2", "41.3"]


def test_end_job_without_scancel_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    end_job(STEP, 3)
