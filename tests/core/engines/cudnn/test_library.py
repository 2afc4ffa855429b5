from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dtrain.core.engines.cudnn import library as cudnn_library
from dtrain.core.engines.cudnn.library import Library, check_library, load_library
from dtrain.core.errors import MissingLibrary, UserError


class Version:
    """cudnnGetVersion of some version."""

    restype: Any = None

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self) -> int:
        return self.number


def test_load_library_of_this_environment_is_version_9(library: Library) -> None:
    assert library.version.startswith("9.")
    assert library.functions.cudnnGetVersion() // 10000 == 9


def test_load_library_without_any_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cudnn_library.sys, "path", [str(tmp_path)])
    monkeypatch.setattr(cudnn_library, "FILE_NAME", "libnosuchcudnn.so.9")
    with pytest.raises(
        MissingLibrary, match=r"engine cudnn needs cuDNN 9, got none; pip install 'dtrain\[cuda12\]' or"
    ):
        load_library({})


def test_load_library_of_a_wheel_comes_before_the_systems(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.9"
    path.parent.mkdir(parents=True)
    path.write_text("not a library")
    monkeypatch.setattr(cudnn_library.sys, "path", ["nowhere", str(tmp_path)])
    with pytest.raises(UserError, match=f"{path} must be a library that can be loaded"):
        load_library({})


@pytest.mark.parametrize("text", [None, "not a library"])
def test_load_library_named_by_the_variable_is_no_other(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "libcudnn.so.9"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"{path} must be a library that can be loaded") as caught:
        load_library({"DTRAIN_CUDNN": str(path)})
    assert not isinstance(caught.value, MissingLibrary)


@pytest.mark.parametrize(
    ("functions", "problem"),
    [
        (SimpleNamespace(cudnnGetVersion=Version(8907)), "must be cuDNN 9, got 8.9.7"),
        (SimpleNamespace(cudnnGetVersion=Version(100203)), "must be cuDNN 9, got 10.2.3"),
        (SimpleNamespace(), "must be cuDNN, got a library without cudnnGetVersion"),
    ],
)
def test_check_library_of_another_one_is_refused(functions: SimpleNamespace, problem: str) -> None:
    with pytest.raises(UserError, match=f"^/some/file {problem}; pip install"):
        check_library(functions, "/some/file")


def test_check_library_of_version_9_is_taken() -> None:
    functions = SimpleNamespace(cudnnGetVersion=Version(92801))
    assert check_library(functions, "/some/file") == Library(functions, "/some/file", "9.28.1")
