"""Tests of data/lmdb_environment.py: what is wrong with an LMDB, and sharing one that is right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import lmdb
import plyvel
import pytest

from dtrain.data import key_index, lmdb_environment
from dtrain.data.errors import DataError
from dtrain.data.lmdb_environment import (
    LmdbEnvironment,
    acquire_environment,
    describe_lmdb_error,
    release_environment,
)

MakeLmdb = Callable[..., str]
PAGE_BYTES = 4096


def complaint_about(path: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        acquire_environment(str(path))
    assert caught.value.problem.startswith(f"{path}: ")
    assert "\n" not in caught.value.problem
    return caught.value.problem.removeprefix(f"{path}: ")


def folder_with(folder: Path, content: bytes) -> Path:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(content)
    return folder


def test_acquire_environment_of_a_good_one_lists_its_keys_in_order(make_lmdb: MakeLmdb) -> None:
    shared = acquire_environment(make_lmdb([b"x"] * 3))
    assert list(shared.keys) == [b"00000000", b"00000001", b"00000002"]
    release_environment(shared)


def test_acquire_environment_of_a_missing_path_says_so(tmp_path: Path) -> None:
    assert complaint_about(tmp_path / "no") == "LMDB must exist, got no such file or folder"


def test_acquire_environment_of_a_file_says_so(make_lmdb: MakeLmdb) -> None:
    data_file = Path(make_lmdb([b"x"])) / "data.mdb"
    assert complaint_about(data_file) == "LMDB must be a folder with data.mdb in it, got a file"


def test_acquire_environment_of_other_folders_says_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    folder.mkdir()
    assert complaint_about(folder) == "LMDB must be a folder with data.mdb in it, got an empty folder"
    (folder / "a.txt").touch()
    assert complaint_about(folder) == "LMDB must be a folder with data.mdb in it, got a.txt"
    (folder / "data.mdb").mkdir()
    assert complaint_about(folder) == "LMDB must be a folder with data.mdb in it, got a.txt, data.mdb"


def test_acquire_environment_of_a_leveldb_names_its_backend(tmp_path: Path) -> None:
    folder = tmp_path / "db"
    plyvel.DB(str(folder), create_if_missing=True).close()
    assert complaint_about(folder).endswith("; it is a LevelDB: set backend: LEVELDB")


@pytest.mark.parametrize("content", [b"x", b"SQLite format 3\x00" * 1000, bytes(3 * PAGE_BYTES)])
def test_acquire_environment_of_a_foreign_file_says_so(tmp_path: Path, content: bytes) -> None:
    folder = folder_with(tmp_path / "db", content)
    assert complaint_about(folder) == "data.mdb must be an LMDB file, got: File is not an LMDB file"


def test_acquire_environment_of_an_empty_file_says_so(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "db", b"")
    assert complaint_about(folder) == "data.mdb must be an LMDB file, got an empty file"


def test_acquire_environment_without_records_says_so(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path / "db")).close()
    assert complaint_about(tmp_path / "db") == "LMDB must have at least one record, got none"


@pytest.mark.parametrize("value_bytes", [50, 3 * PAGE_BYTES])
def test_acquire_environment_of_every_truncation_says_so(
    tmp_path: Path, make_lmdb: MakeLmdb, value_bytes: int
) -> None:
    content = (Path(make_lmdb([bytes(value_bytes)] * 20)) / "data.mdb").read_bytes()
    for index, size in enumerate([*range(PAGE_BYTES, len(content), PAGE_BYTES), len(content) - 1]):
        complaint = complaint_about(folder_with(tmp_path / f"cut{index}", content[:size]))
        if size >= 2 * PAGE_BYTES:
            needed = f"data.mdb must have at least {len(content)} bytes, got {size}"
            assert complaint == f"{needed}; it is truncated, copy it again"
        else:
            assert complaint.startswith("data.mdb must be an LMDB file, got: ")


def test_acquire_environment_with_a_lost_page_says_so(tmp_path: Path, make_lmdb: MakeLmdb) -> None:
    content = bytearray((Path(make_lmdb([bytes(50)] * 1000)) / "data.mdb").read_bytes())
    with lmdb.open(str(folder_with(tmp_path / "good", bytes(content))), readonly=True, lock=False) as good:
        assert good.stat()["depth"] == 2
    # LMDB's page header: flags at byte 10 (1: branch page), at byte 16 where the first node is; a branch's
    # node begins with the number of the page below it.
    root = next(
        page
        for page in range(2 * PAGE_BYTES, len(content), PAGE_BYTES)
        if int.from_bytes(content[page + 10 : page + 12], "little") & 1
    )
    node = root + int.from_bytes(content[root + 16 : root + 18], "little")
    content[node : node + 4] = (1 << 30).to_bytes(4, "little")
    assert complaint_about(folder_with(tmp_path / "bad", bytes(content))).startswith(
        "LMDB must be intact, got: "
    )


def test_acquire_environment_twice_shares_until_the_last_release(tmp_path: Path, make_lmdb: MakeLmdb) -> None:
    path = Path(make_lmdb([b"x"]))
    link = tmp_path / "link"
    link.symlink_to(path)
    first, second = acquire_environment(str(path)), acquire_environment(str(link))
    assert first is second
    release_environment(first)
    assert read_first(second) == b"x"
    release_environment(second)
    with pytest.raises(lmdb.Error):
        read_first(second)
    again = acquire_environment(str(path))
    assert read_first(again) == b"x"
    release_environment(again)


def read_first(shared: LmdbEnvironment) -> bytes | None:
    with shared.environment.begin() as transaction:
        value: bytes | None = transaction.get(shared.keys[0])
        return value


def test_acquire_environment_of_one_written_anew_at_the_path_reads_the_new(
    make_lmdb: MakeLmdb,
) -> None:
    old, new = make_lmdb([b"old"]), make_lmdb([b"new"])
    held = acquire_environment(old)
    shutil.rmtree(old)
    shutil.move(new, old)
    fresh = acquire_environment(old)
    assert (read_first(held), read_first(fresh)) == (b"old", b"new")
    release_environment(held)
    release_environment(fresh)


def test_acquire_environment_after_a_failure_can_be_repeated(tmp_path: Path, make_lmdb: MakeLmdb) -> None:
    good = Path(make_lmdb([bytes(3 * PAGE_BYTES)] * 9)) / "data.mdb"
    folder = folder_with(tmp_path / "cut", good.read_bytes()[: 4 * PAGE_BYTES])
    assert complaint_about(folder) == complaint_about(folder)
    (folder / "data.mdb").write_bytes(good.read_bytes())
    release_environment(acquire_environment(str(folder)))


def test_acquire_environment_of_many_records_lists_their_keys_once_for_all_that_open_it(
    make_lmdb: MakeLmdb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_index, "NUM_RECORDS_WITHOUT_INDEX", 10)
    path = make_lmdb([b"x"] * 30)
    first = acquire_environment(path)
    release_environment(first)
    assert (Path(path) / key_index.INDEX_FILE).is_file()
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_environment, "_list_keys", None)  # which nobody calls
        again = acquire_environment(path)
    assert list(again.keys) == list(first.keys) == [b"%08d" % index for index in range(30)]
    release_environment(again)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write_more(path),
        lambda path: os.utime(path / "data.mdb", ns=(5, 5)),
        lambda path: os.truncate(path / "data.mdb", (path / "data.mdb").stat().st_size + PAGE_BYTES),
    ],
)
def test_acquire_environment_of_many_records_that_have_changed_lists_them_anew(
    make_lmdb: MakeLmdb, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(key_index, "NUM_RECORDS_WITHOUT_INDEX", 10)
    path = Path(make_lmdb([b"x"] * 30))
    os.truncate(path / "data.mdb", 64 * PAGE_BYTES)  # so that it need not grow
    release_environment(acquire_environment(str(path)))
    old = (path / key_index.INDEX_FILE).read_bytes()
    change(path)
    again = acquire_environment(str(path))
    with again.environment.begin() as transaction:
        assert list(again.keys) == list(transaction.cursor().iternext(values=False))
    release_environment(again)
    assert (path / key_index.INDEX_FILE).read_bytes() != old


def write_more(path: Path) -> None:
    """Put another record for one of them, and keep the number, the time of change and the size of the file."""
    before = (path / "data.mdb").stat()
    with lmdb.open(str(path), lock=False) as environment, environment.begin(write=True) as transaction:
        transaction.delete(b"00000003")
        transaction.put(b"0", b"x")
    assert (path / "data.mdb").stat().st_size == before.st_size
    os.utime(path / "data.mdb", ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("db: MDB_INVALID: File is not an LMDB file", "File is not an LMDB file"),
        ("db: Permission denied", "Permission denied"),
        ("mdb_get: went wrong", "mdb_get: went wrong"),
    ],
)
def test_describe_lmdb_error_with_prefixes_drops_them(text: str, described: str) -> None:
    assert describe_lmdb_error("db", lmdb.Error(text)) == described
