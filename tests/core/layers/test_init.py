"""Every layer that is registered is tested: by rows of a table, or by a test file of its own."""

from __future__ import annotations

import importlib
from pathlib import Path

from dtrain.core.layers import LAYERS

HERE = Path(__file__).parent


def test_every_registered_layer_has_a_row() -> None:
    tables = [
        importlib.import_module(f"tests.core.layers.{path.stem}") for path in HERE.glob("test_*_layers.py")
    ]
    types_with_rows = {row.type for table in tables for row in table.ROWS}
    own_tests = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    missing = [
        name
        for name in LAYERS
        if name not in types_with_rows and LAYERS[name].__module__.rpartition(".")[2] not in own_tests
    ]
    assert not missing
