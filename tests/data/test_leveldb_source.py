"""Tests of data/leveldb_source.py."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import plyvel
import pytest
from numpy.typing import NDArray

from dtrain.data import key_index
from dtrain.data.errors import DataError
from dtrain.data.leveldb_source import LeveldbSource, make_view
from dtrain.data.lmdb_writer import write_lmdb

MakeLeveldb = Callable[..., str]


@pytest.fixture
def values(make_datum: Callable[..., bytes], images: NDArray[np.uint8]) -> list[bytes]:
    return [make_datum(image, label) for label, image in enumerate(images)]


def test_read_of_records_written_in_any_order_goes_by_key(tmp_path: Path, values: list[bytes]) -> None:
    path = str(tmp_path / "db")
    database = plyvel.DB(path, create_if_missing=True)
    for index in (3, 0, 2, 1):
        database.put(b"key%d" % index, values[index])
    database.close()
    source = LeveldbSource(path)
    assert len(source) == 4
    assert [bytes(record) for record in source.read_batch(range(4))] == values[:4]
    assert source.key(2) == "key2"
    assert source.describe() == f"{path} (LevelDB, 4 records)"
    source.close()


def test_source_is_opened_twice_and_leaves_the_database_alone(
    make_leveldb: MakeLeveldb, values: list[bytes]
) -> None:
    path = make_leveldb(values)
    before = {name: (Path(path) / name).read_bytes() for name in sorted(os.listdir(path))}
    first, second = LeveldbSource(path), LeveldbSource(path)
    assert bytes(first.read(4)) == bytes(second.read(4)) == values[4]
    first.close()
    assert bytes(second.read(5)) == values[5]
    second.close()
    assert {name: (Path(path) / name).read_bytes() for name in sorted(os.listdir(path))} == before


def test_source_of_many_records_lists_its_keys_once_until_the_database_changes(
    make_leveldb: MakeLeveldb, values: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "NUM_RECORDS_WITHOUT_INDEX", 4)
    path = make_leveldb(values)
    LeveldbSource(path).close()
    assert (Path(path) / key_index.INDEX_FILE).is_file()
    with monkeypatch.context() as patch:
        patch.setattr(LeveldbSource, "_list_keys", None)  # which nobody calls
        source = LeveldbSource(path)
    assert [source.key(index) for index in range(10)] == [f"{index:08}" for index in range(10)]
    assert bytes(source.read(7)) == values[7]
    source.close()
    with closing(plyvel.DB(path)) as database:
        database.put(b"0", values[3])
    source = LeveldbSource(path)
    assert (source.key(0), len(source), bytes(source.read(0))) == ("0", 11, values[3])
    source.close()


def test_source_is_opened_by_two_processes_at_once(make_leveldb: MakeLeveldb, values: list[bytes]) -> None:
    path = make_leveldb(values)
    source = LeveldbSource(path)
    program = f"from dtrain.data.leveldb_source import LeveldbSource; print(len(LeveldbSource({path!r})))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "10\n"
    )
    source.close()


def test_source_of_tables_reads_them_through_links(tmp_path: Path, values: list[bytes]) -> None:
    path = str(tmp_path / "db")
    for _ in range(2):  # opening again turns the log into a table
        with plyvel.DB(path, create_if_missing=True) as database:
            for index, value in enumerate(values):
                database.put(b"%08d" % index, value)
    view = make_view(path)
    assert any(os.path.islink(os.path.join(view, name)) for name in os.listdir(view))
    source = LeveldbSource(path)
    assert [bytes(source.read(index)) for index in range(len(source))] == values
    source.close()


def test_close_removes_the_view_and_may_be_repeated(
    make_leveldb: MakeLeveldb, values: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_leveldb(values)
    views = tmp_path / "views"
    views.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(views))
    source = LeveldbSource(path)
    assert len(os.listdir(views)) == 1
    source.close()
    source.close()
    assert os.listdir(views) == []


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda path: None, "LevelDB must exist, got no such folder"),
        (lambda path: path.write_text("x"), "LevelDB must be a folder with CURRENT in it, got a file"),
        (lambda path: path.mkdir(), "LevelDB must be a folder with CURRENT in it, got an empty folder"),
        (lambda path: plyvel.DB(str(path), create_if_missing=True).close(), "at least one record, got none"),
    ],
)
def test_source_of_no_database_says_what_it_found(
    prepare: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "db")
    with pytest.raises(DataError, match=message):
        LeveldbSource(str(tmp_path / "db"))


def test_source_of_an_lmdb_names_its_backend(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "db", [(b"0", b"x")])
    with pytest.raises(DataError, match="in it, got data.mdb.*; it is an LMDB: set backend: LMDB$"):
        LeveldbSource(str(tmp_path / "db"))


def test_source_without_its_manifest_is_damaged(make_leveldb: MakeLeveldb, values: list[bytes]) -> None:
    path = make_leveldb(values)
    (Path(path) / "CURRENT").write_text("MANIFEST-000099\n")
    with pytest.raises(DataError, match=f"^{path}: LevelDB must be intact, got: "):
        LeveldbSource(path)


def test_source_of_other_records_names_the_first(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    with plyvel.DB(path, create_if_missing=True) as database:
        database.put(b"a", b"\xff\xff")
    with pytest.raises(DataError, match=f'^{path}: record "a": '):
        LeveldbSource(path)


def test_source_without_plyvel_names_the_extra(
    make_leveldb: MakeLeveldb, values: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_leveldb(values)
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(DataError, match=r"pip install 'dtrain\[leveldb\]'"):
        LeveldbSource(path)
