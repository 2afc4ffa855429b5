from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.core.engines.onednn import library
from dtrain.core.engines.onednn.library import check_library, load_library
from dtrain.core.errors import MissingLibrary, UserError


class Function:
    """Returns a pointer to a version."""

    restype: Any

    def __init__(self, version: SimpleNamespace) -> None:
        self.version = version

    def __call__(self) -> SimpleNamespace:
        return SimpleNamespace(contents=self.version)


class Functions:
    """A library that says it has some version and CPU runtime."""

    def __init__(self, major: int, cpu_runtime: int, instructions: int = 0) -> None:
        version = SimpleNamespace(major=major, minor=6, patch=3, cpu_runtime=cpu_runtime)
        self.dnnl_version = Function(version)
        self.dnnl_get_effective_cpu_isa = lambda: instructions


def test_load_library_of_this_environment_is_version_3(onednn: Any) -> None:
    found = load_library({})
    assert found.version.startswith("3.")
    assert found.runtime in ("sequential", "OpenMP", "TBB", "thread pool")


def test_load_library_without_any_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library.sys, "prefix", str(tmp_path))
    monkeypatch.setattr(library, "FILE_NAME", "libnosuchdnnl.so.3")
    with pytest.raises(
        MissingLibrary, match=r"engine onednn needs oneDNN 3, got none; pip install 'dtrain\[cpu\]'"
    ):
        load_library({})


@pytest.mark.parametrize("text", [None, "not a library"])
def test_load_library_named_by_the_variable_is_no_other(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "libdnnl.so.3"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"{path} must be a library that can be loaded") as caught:
        load_library({"DTRAIN_ONEDNN": str(path)})
    assert not isinstance(caught.value, MissingLibrary)


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        (Functions(2, 2), "must be oneDNN 3, got 2.6.3"),
        (Functions(3, 512), "must compute on CPU threads, got a SYCL build"),
        (Functions(3, 0), "must compute on CPU threads"),
    ],
)
def test_check_library_of_another_kind_is_refused(functions: Any, problem: str) -> None:
    with pytest.raises(UserError, match=f"/x/libdnnl.so {problem}"):
        check_library(functions, "/x/libdnnl.so")


def test_check_library_that_is_not_onednn_is_refused() -> None:
    with pytest.raises(UserError, match="this must be oneDNN, got a library without dnnl_version"):
        check_library(ctypes.CDLL(None), "this")


@pytest.mark.parametrize(
    ("instructions", "has_bf16"), [(0x27, False), (0x67, False), (0xE7, True), (0x1EF, True)]
)
def test_check_library_knows_bf16_by_the_instructions_in_use(instructions: int, has_bf16: bool) -> None:
    """dnnl_types.h: avx512_core, _vnni, _bf16 and _fp16."""
    functions: Any = Functions(3, 2, instructions)
    assert check_library(functions, "/x/libdnnl.so").has_bf16 is has_bf16
