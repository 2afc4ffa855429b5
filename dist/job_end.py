"""Letting the launcher end all ranks after one has failed, in the way that each kind of launcher obeys.

In the flow prototxt → graph → net → solver → communicator → snapshot this is the last a supervisor (supervisor.py)
does before it exits. Open MPI's mpirun and PMIx need nothing: an exit code other than 0 is enough for them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from dtrain.dist.launch_environment import Environment, launched_world_size, launcher_of

END_SIGNAL = signal.SIGUSR2  # tells a supervisor that the job has failed: end the rank, say nothing
_SCANCEL_S = 5.0


def end_job(environment: Environment, exit_code: int) -> None:
    """Ask the launcher to end the job with `exit_code`, where exiting with it does not do so."""
    with contextlib.suppress(OSError, ValueError, subprocess.SubprocessError):  # it ends as well as it can
        if is_hydra(environment):
            os.write(int(environment["PMI_FD"]), f"cmd=abort exitcode={exit_code}\n".encode())
        elif is_slurm_step(environment):
            subprocess.run(
                scancel_command(environment),
                timeout=_SCANCEL_S,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )


def is_hydra(environment: Environment) -> bool:
    """Return whether hydra started this process; srun --mpi=pmi2 sets PMI_FD too, and speaks another PMI on it."""
    return "PMI_FD" in environment and "MPI_LOCALRANKID" in environment


def is_slurm_step(environment: Environment) -> bool:
    """Return whether srun started this process itself."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_PROCID")
    if any(name not in environment for name in names):
        return False
    launcher = launcher_of(environment)
    by_pmi2 = "PMI_RANK" in environment and "MPI_LOCALRANKID" not in environment
    is_srun = launcher is not None and (launcher.rank == "SLURM_PROCID" or by_pmi2)
    return is_srun and launched_world_size(environment) != 1


def scancel_command(environment: Environment) -> list[str]:
    """Return the command that sends END_SIGNAL to the supervisors of the whole step."""
    step = f"{environment['SLURM_JOB_ID']}.{environment['SLURM_STEP_ID']}"
    return ["scancel", f"--signal={END_SIGNAL.name.removeprefix('SIG')}", step]
