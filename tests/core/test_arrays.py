"""Bringing arrays to the host and back, whichever kind they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.arrays import assign, to_host
from tests.played.cupy import play_cupy


@pytest.fixture(params=["host", "device"])
def xp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module of arrays in each place."""
    return np if request.param == "host" else play_cupy(monkeypatch)


def test_to_host_is_a_copy_and_assign_brings_it_back(xp: Any) -> None:
    array = xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    copy = to_host(array)
    assert type(copy) is np.ndarray
    copy += 1
    assert to_host(array).tolist() == [[0, 1, 2], [3, 4, 5]]
    assign(array, copy.reshape(-1).astype(np.float64))  # any shape of as many values, any type
    assert to_host(array).tolist() == [[1, 2, 3], [4, 5, 6]]
