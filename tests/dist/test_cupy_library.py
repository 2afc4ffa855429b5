"""Loading cupy and NCCL where they are missing; where they are there, test_nccl.py reads their signatures."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from dtrain.dist.cupy_library import load_cupy, load_nccl
from dtrain.dist.errors import LaunchError


def install(monkeypatch: pytest.MonkeyPatch, **names: object) -> ModuleType:
    """Let Python find a cupy whose cuda.nccl has these names."""
    cupy, cuda, nccl = ModuleType("cupy"), ModuleType("cupy.cuda"), ModuleType("cupy.cuda.nccl")
    nccl.__dict__.update(names)
    cupy.cuda, cuda.nccl = cuda, nccl  # type: ignore[attr-defined]
    for module in (cupy, cuda, nccl):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return cupy


@pytest.mark.parametrize("load", [load_cupy, load_nccl])
def test_load_without_cupy_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, load: object) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(LaunchError, match=r"^gpu: cupy must be installed .*; pip install 'dtrain\[cuda12\]'"):
        load()  # type: ignore[operator]


@pytest.mark.parametrize("names", [{}, {"available": False}])
def test_load_nccl_without_nccl_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, names: dict[str, object]
) -> None:
    cupy = install(monkeypatch, **names)
    assert load_cupy() is cupy
    with pytest.raises(LaunchError, match=r"^nccl: cupy must find libnccl.so.2, found none; pip install"):
        load_nccl()


def test_load_nccl_with_nccl_returns_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = install(monkeypatch, available=True)
    assert load_nccl() is cupy
