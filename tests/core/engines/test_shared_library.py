"""Finding an engine's library among several places; what is special of each stands in its own test_library.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.engines.shared_library import load_first
from dtrain.core.errors import MissingLibrary, UserError


def test_load_first_passes_over_names_that_the_system_does_not_know() -> None:
    functions, path = load_first(["libabsent.so.9", "libc.so.6"], "none", "fix")
    assert path == "libc.so.6"
    assert functions.abs(-3) == 3


def test_load_first_of_none_says_what_is_missing_and_the_fix() -> None:
    with pytest.raises(MissingLibrary, match=r"^engine x needs X 9, got none; pip install x$"):
        load_first(["libabsent.so.9"], "engine x needs X 9, got none", "pip install x")


def test_load_first_of_a_file_that_is_no_library_says_so(tmp_path: Path) -> None:
    path = tmp_path / "libx.so.9"
    path.write_text("no library")
    with pytest.raises(UserError, match=r"libx.so.9 must be a library that can be loaded, got: .*; fix$"):
        load_first([str(path)], "none", "fix")
