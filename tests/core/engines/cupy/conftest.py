"""What the tests of the engine cupy share: cupy, played where no GPU is asked for, and data to read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.devices import open_cupy
from dtrain.core.engines.cupy.engine import CupyEngine
from tests.core.engines.cupy.reading_layers import write_data
from tests.played.cublas import PlayedCublas, play_cublas
from tests.played.cupy import REAL_GPU, play_cupy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return cupy's module."""
    play_cupy(monkeypatch)
    return open_cupy()


@pytest.fixture
def played_cublas(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> PlayedCublas:
    """Return the played cuBLAS, for tests of how it is asked; there is none on a real GPU."""
    if os.environ.get(REAL_GPU):
        pytest.skip("how cuBLAS is asked is not seen on a real GPU")
    return play_cublas(monkeypatch)


@pytest.fixture
def engine(cupy: Any) -> CupyEngine:
    """Return the engine cupy."""
    engine = create_engine("cupy")
    assert isinstance(engine, CupyEngine)
    return engine


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of data, which all tests use, and may add to under names of their own."""
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture
def folder(written: Path, cupy: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with data in it, where there is a GPU."""
    monkeypatch.chdir(written)
    return written
