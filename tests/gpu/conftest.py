"""Tests that need GPUs: collected only when this folder is named (`pytest tests/gpu`), skipped where none is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dtrain.core.engines.cupy.devices import count_devices
from dtrain.core.errors import UserError
from dtrain.dist.cupy_library import load_nccl
from dtrain.dist.errors import LaunchError

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
