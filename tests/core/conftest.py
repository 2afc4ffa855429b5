"""Modules of users' layers, written by a test, imported, and forgotten after it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WriteModule = Callable[[str, str], Path]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WriteModule]:
    """Return a function that writes name.py into tmp_path, the working directory of the test.

    What the test imports from there, puts on sys.path and lets `import caffe` mean is undone after it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would outlive a change within a second

    def write(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        return path

    _forget(tmp_path)
    yield write
    _forget(tmp_path)


def _forget(folder: Path) -> None:
    """Drop the modules in `folder`, and those that go by the name of caffe."""
    for name, module in list(sys.modules.items()):
        is_inside = str(getattr(module, "__file__", None) or "").startswith(str(folder))
        if is_inside or name.partition(".")[0] == "caffe":
            del sys.modules[name]
