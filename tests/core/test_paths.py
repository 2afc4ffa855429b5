from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.paths import resolve


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("here/both", "nets/both", "nets/beside"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("both", "both"),  # as Caffe finds it
        ("beside", "{folder}/nets/beside"),
        ("neither", "neither"),
        ("{folder}/nets/beside", "{folder}/nets/beside"),
        ("{folder}/neither", "{folder}/neither"),
    ],
)
def test_resolve_looks_in_the_working_directory_and_then_beside_the_file(
    folders: Path, path: str, expected: str
) -> None:
    named_in = str(folders / "nets" / "net.prototxt")
    assert resolve(path.format(folder=folders), named_in) == expected.format(folder=folders)


def test_resolve_of_a_file_named_without_a_folder_looks_in_the_working_directory(folders: Path) -> None:
    assert resolve("both", "net.prototxt") == "both"
    assert resolve("beside", "net.prototxt") == "beside"


def test_resolve_of_a_name_that_can_not_be_says_so() -> None:
    with pytest.raises(
        UserError, match=r"^net.prototxt: a file's name must have no NUL character, got 'a\\x00b'$"
    ):
        resolve("a\0b", "net.prototxt")
