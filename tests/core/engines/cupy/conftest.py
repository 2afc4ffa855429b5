"""What the tests of the engine cupy share: cupy, played where no GPU is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.devices import open_cupy
from dtrain.core.engines.cupy.engine import CupyEngine
from tests.played.cupy import play_cupy


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return cupy's module."""
    play_cupy(monkeypatch)
    return open_cupy()


@pytest.fixture
def engine(cupy: Any) -> CupyEngine:
    """Return the engine cupy."""
    engine = create_engine("cupy")
    assert isinstance(engine, CupyEngine)
    return engine
