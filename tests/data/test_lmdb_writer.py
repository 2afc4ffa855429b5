"""Tests of data/lmdb_writer.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from dtrain.data.errors import DataError
from dtrain.data.lmdb_writer import NUM_RECORDS_PER_COMMIT, Record, write_lmdb, write_splits


def read_all(path: Path) -> list[Record]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


def make_records(num_records: int, value_bytes: int = 10) -> list[Record]:
    return [(b"%08d" % index, bytes([index % 256]) * value_bytes) for index in range(num_records)]


@pytest.mark.parametrize("num_records", [1, NUM_RECORDS_PER_COMMIT, 2 * NUM_RECORDS_PER_COMMIT + 1])
def test_write_lmdb_of_records_writes_all(tmp_path: Path, num_records: int) -> None:
    records = make_records(num_records)
    assert write_lmdb(tmp_path / "db", iter(records)) == num_records
    assert read_all(tmp_path / "db") == records
    assert os.listdir(tmp_path) == ["db"]


def test_write_lmdb_with_a_full_map_doubles_it(tmp_path: Path) -> None:
    records = make_records(2500, value_bytes=400)
    assert write_lmdb(tmp_path / "db", records, map_bytes=1 << 16) == 2500
    assert (tmp_path / "db" / "data.mdb").stat().st_size > 1 << 20
    assert read_all(tmp_path / "db") == records


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_write_lmdb_to_an_existing_path_refuses(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "db"
    if kind == "folder":
        target.mkdir()
    elif kind == "file":
        target.touch()
    else:
        target.symlink_to("nowhere")
    with pytest.raises(DataError, match=r"db: must not exist yet, got a (folder|file); remove it first$"):
        write_lmdb(target, make_records(1))
    assert os.listdir(tmp_path) == ["db"]


def test_write_lmdb_to_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no/db: must be writable, got: No such file or directory$"):
        write_lmdb(tmp_path / "no" / "db", make_records(1))


def failing_records() -> Iterator[Record]:
    yield from make_records(NUM_RECORDS_PER_COMMIT + 5)
    raise RuntimeError("the source broke")


def test_write_lmdb_with_records_that_fail_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the source broke"):
        write_lmdb(tmp_path / "db", failing_records())
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        ([], "db: LMDB must get at least one record, got none"),
        ([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], "db: keys must differ, got b'a' twice"),
        ([(b"k" * 600, b"1")], "db: must be writable as LMDB, got: "),
    ],
)
def test_write_lmdb_of_wrong_records_says_so_and_leaves_nothing(
    tmp_path: Path, records: list[Record], complaint: str
) -> None:
    with pytest.raises(DataError) as caught:
        write_lmdb(tmp_path / "db", records)
    assert complaint in caught.value.problem
    assert os.listdir(tmp_path) == []


def test_write_lmdb_where_somebody_else_was_faster_keeps_theirs(tmp_path: Path) -> None:
    def records_while_another_makes_the_folder() -> Iterator[Record]:
        yield from make_records(1)
        (tmp_path / "db").mkdir()

    with pytest.raises(DataError, match="must not exist yet"):
        write_lmdb(tmp_path / "db", records_while_another_makes_the_folder())
    assert os.listdir(tmp_path) == ["db"]
    assert os.listdir(tmp_path / "db") == []


def test_write_splits_of_several_writes_each(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert write_splits(out, {"train": make_records(3), "test": make_records(2)}) == {"train": 3, "test": 2}
    assert read_all(out / "train") == make_records(3)
    assert read_all(out / "test") == make_records(2)


def test_write_splits_with_one_that_fails_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the source broke"):
        write_splits(tmp_path / "out", {"train": make_records(3), "test": failing_records()})
    assert os.listdir(tmp_path) == []


def test_write_splits_into_a_used_folder_keeps_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RuntimeError, match="the source broke"):
        write_splits(tmp_path, {"train": make_records(3), "test": failing_records()})
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_write_splits_with_an_existing_one_refuses_before_writing(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "test", make_records(4))
    with pytest.raises(DataError, match="test: must not exist yet, got a folder"):
        write_splits(tmp_path, {"train": make_records(3), "test": make_records(2)})
    assert os.listdir(tmp_path) == ["test"]
    assert read_all(tmp_path / "test") == make_records(4)


def test_write_splits_to_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match=r"out: must be writable, got: File exists$"):
        write_splits(tmp_path / "out", {"train": make_records(1)})
    assert (tmp_path / "out").read_text() == "mine"
