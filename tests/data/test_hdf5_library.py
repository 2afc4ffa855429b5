"""Tests of data/hdf5_library.py."""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import pytest

from dtrain.data.errors import DataError
from dtrain.data.hdf5_library import hdf5_errors, is_hdf5, open_hdf5


def test_is_hdf5_goes_by_content(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("no")
    with h5py.File(tmp_path / "data.bin", "w"):
        pass
    assert is_hdf5(tmp_path / "data.bin")
    assert not is_hdf5(tmp_path / "text.h5")
    assert not is_hdf5(tmp_path / "none")
    assert not is_hdf5(tmp_path)


def test_open_hdf5_for_writing_makes_a_file_that_h5py_reads(tmp_path: Path) -> None:
    with open_hdf5(tmp_path / "a.h5", "w") as file:
        file["x"] = [1, 2]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"][:].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "HDF5 file must exist, got no such file"), (b"text", "must be an HDF5 file, got other bytes")],
)
def test_open_hdf5_of_another_file_says_so(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_hdf5(path)


def test_open_hdf5_of_a_truncated_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"] = list(range(1000))
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(DataError, match="HDF5 file must be intact, got: .*truncated"):
        open_hdf5(path)


def test_open_hdf5_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"pip install 'dtrain\[hdf5\]'"):
        open_hdf5(tmp_path / "a.h5", "w")


def test_hdf5_errors_lets_errors_of_dtrain_pass() -> None:
    with pytest.raises(DataError, match="^mine$"), hdf5_errors("a.h5"):
        raise DataError("mine")


def test_open_hdf5_finds_the_file_behind_a_block_of_a_users_own(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file["x"] = [3]
    assert is_hdf5(tmp_path / "a.h5")
    with open_hdf5(tmp_path / "a.h5") as file:
        assert file["x"][:].tolist() == [3]
