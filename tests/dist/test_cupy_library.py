"""Loading cupy and NCCL where they are missing; where they are there, test_nccl.py reads their signatures."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace

import pytest

from dtrain.dist.cupy_library import has_happened, load_cupy, load_nccl
from dtrain.dist.errors import LaunchError
from tests.dist.fake_cupy import make_fake_cupy


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


def test_has_happened_is_whether_the_stream_has_come_there() -> None:
    cupy = make_fake_cupy(1)
    stream, event, may_go = cupy.cuda.Stream(), cupy.cuda.Event(), threading.Event()
    stream.give(lambda: may_go.wait(30) or None)
    event.record(stream)
    assert not has_happened(cupy, event)
    may_go.set()
    stream.synchronize()
    assert has_happened(cupy, event)


def test_has_happened_on_a_gpu_that_has_failed_raises() -> None:
    cupy = make_fake_cupy(1)
    event = cupy.cuda.Event()
    event.failure = 700  # which cupy's Event.done takes for "not yet"
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="700"):
        has_happened(cupy, event)


def test_event_query_of_the_installed_cupy_returns_errors_and_raises_none() -> None:
    cupy = pytest.importorskip("cupy")
    runtime = cupy.cuda.runtime
    status = runtime.eventQuery(0)  # which is no event's address, on a machine without a GPU and on one with
    assert status not in (0, 600)
    with pytest.raises(runtime.CUDARuntimeError) as caught:
        has_happened(cupy, SimpleNamespace(ptr=0))
    assert caught.value.status == status
