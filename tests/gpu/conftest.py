"""Tests that need GPUs: collected only when this folder is named (`pytest tests/gpu`), skipped where none is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dtrain.core.engines.cupy.devices import count_devices
from dtrain.core.errors import UserError
from dtrain.dist.cupy_library import load_nccl
from dtrain.dist.errors import LaunchError
from dtrain.launcher.mpirun import find_mpirun
from tests.conftest import Mpirun
from tests.gpu.suites import Suites

FOLDER = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave this folder out unless one of pytest's arguments lies in it."""
    named = [Path(os.path.abspath(arg.partition("::")[0])) for arg in config.args]
    return None if any(path == FOLDER or FOLDER in path.parents for path in named) else True


@pytest.fixture(scope="session")
def gpus() -> int:
    """Return how many GPUs this process sees, on a machine that has cupy."""
    try:
        return count_devices()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session", autouse=True)
def suites(request: pytest.FixtureRequest) -> Iterator[Suites | None]:
    """Run the files of test_suites.py from the first test on, behind whatever other tests there are."""
    chosen = [item for item in request.session.items if item.path.name == "test_suites.py"]
    if not chosen:
        yield None
        return
    request.getfixturevalue("gpus")
    running = Suites([item.callspec.params["path"] for item in chosen if isinstance(item, pytest.Function)])
    yield running
    running.close()


@pytest.fixture(scope="session")
def cupy(gpus: int) -> Any:
    """Return cupy on a machine that has it, NCCL and a GPU."""
    try:
        return load_nccl()
    except LaunchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def num_gpus(cupy: Any, gpus: int) -> int:
    """Return how many GPUs this process sees, where NCCL is."""
    return gpus


@pytest.fixture(scope="session")
def has_mpi() -> bool:
    """Return whether ranks can be started here: there are an mpirun, mpi4py and the MPI that it loads."""
    try:
        find_mpirun()
    except LaunchError:
        return False
    looked = subprocess.run([sys.executable, "-c", "from mpi4py import MPI"], capture_output=True, timeout=60)
    return looked.returncode == 0


@pytest.fixture
def mpirun(mpirun: Mpirun, has_mpi: bool) -> Mpirun:
    """Return what runs programs under mpirun, where there is an MPI."""
    if not has_mpi:
        pytest.skip("there is no MPI here: mpi4py, a library for it and mpirun")
    return mpirun
