"""Settings of Open MPI that a job is better off with, for mpi.py to set before MPI is loaded.

In the flow prototxt → graph → net → solver → communicator → snapshot this concerns how the communicator
starts and waits. Other MPIs do not read these variables.
"""

from __future__ import annotations

from collections.abc import Mapping

from dtrain.dist.launch_environment import launched_local_size, launched_world_size, launcher_of

# Looking for a fabric through libfabric takes a second at start, and no message of a job on one host uses
# one.
_WITHOUT_FABRIC = {"OMPI_MCA_mtl": "^ofi", "OMPI_MCA_btl": "^ofi"}
# Whoever has set one of these has chosen how messages travel, and may need a fabric for it.
_TRANSPORTS = ("OMPI_MCA_pml", "OMPI_MCA_mtl", "OMPI_MCA_btl")
# A waiting rank spins; where ranks outnumber cores it would keep those that have work to do from running.
_YIELDING = {"OMPI_MCA_mpi_yield_when_idle": "1"}
# A rank that finds its connection to another host closed is ended by Open MPI itself, with exit code 14 for the job.
# The one that closed it must come first: its supervisor knows why, and ends the job with the right code.
_PATIENT = {"OMPI_MCA_mpi_abort_delay": "5"}


def mpi_settings(env: Mapping[str, str], num_cores: int) -> dict[str, str]:
    """Return the variables to set; what the user, or mpirun --mca, has set already stays.

    Arguments:
        env: the environment of this process.
        num_cores: how many cores this host has (not those that mpirun bound this rank to).
    """
    settings: dict[str, str] = {}
    if not _is_on_one_host(env):
        settings |= _PATIENT
    elif not any(name in env for name in _TRANSPORTS):
        settings |= _WITHOUT_FABRIC
    if (launched_local_size(env) or 1) > num_cores:
        settings |= _YIELDING
    return {name: value for name, value in settings.items() if name not in env}


def _is_on_one_host(env: Mapping[str, str]) -> bool:
    """Return whether all ranks are known to be on this host."""
    if launcher_of(env) is None:
        return True
    local_size = launched_local_size(env)
    return local_size is not None and local_size == launched_world_size(env)
