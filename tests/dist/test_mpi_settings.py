from __future__ import annotations

import pytest

from dtrain.dist.mpi_settings import mpi_settings

NO_FABRIC = {"OMPI_MCA_mtl": "^ofi", "OMPI_MCA_btl": "^ofi"}
YIELD = {"OMPI_MCA_mpi_yield_when_idle": "1"}
PATIENT = {"OMPI_MCA_mpi_abort_delay": "5"}


def launched(world_size: int, local_size: int, **more: str) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_COMM_WORLD_SIZE": str(world_size),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(local_size),
        **more,
    }


TABLE = {
    "not launched": ({}, 2, NO_FABRIC),
    "one host, enough cores": (launched(2, 2), 2, NO_FABRIC),
    "one host, too few cores": (launched(4, 4), 2, NO_FABRIC | YIELD),
    "two hosts, enough cores": (launched(4, 2), 2, PATIENT),
    "two hosts, too few cores": (launched(8, 4), 2, PATIENT | YIELD),
    "the user's own settings": (
        launched(4, 4, OMPI_MCA_btl="tcp,self", OMPI_MCA_mpi_yield_when_idle="0"),
        2,
        {},
    ),
    "the user's own way of messages": ({"OMPI_MCA_pml": "cm"}, 2, {}),
    "prterun, which tells no sizes": ({"PMIX_RANK": "0"}, 2, PATIENT),
    "srun, which does not tell the local size": (
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"},
        2,
        PATIENT,
    ),
}


@pytest.mark.parametrize(("env", "num_cores", "settings"), TABLE.values(), ids=TABLE)
def test_mpi_settings_table(env: dict[str, str], num_cores: int, settings: dict[str, str]) -> None:
    assert mpi_settings(env, num_cores) == settings
