"""Tests of data/key_index.py: where the index of a database lies, and when it is taken, written or done without."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dtrain.data import key_index
from dtrain.data.errors import DataError
from dtrain.data.key_index import INDEX_FILE, index_places, make_stamp, open_keys

ROOT = Path(__file__).resolve().parents[2]
NUM_KEYS = 40
STAMP, OTHER_STAMP = make_stamp("LMDB", 1), make_stamp("LMDB", 2)
KEYS = [b"%04d" % number for number in range(NUM_KEYS)]


@pytest.fixture(autouse=True)
def _few_records_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_index, "NUM_RECORDS_WITHOUT_INDEX", NUM_KEYS)


def unread() -> Iterator[bytes]:
    raise AssertionError("the database must not be walked through")
    yield b""


def lister(keys: list[bytes]) -> Callable[[], Iterator[bytes]]:
    return lambda: iter(keys)


def test_open_keys_of_many_records_writes_an_index_that_the_next_takes(tmp_path: Path) -> None:
    place = tmp_path / "new" / "a.keys"
    assert list(open_keys([place], STAMP, lister(KEYS))) == KEYS
    assert os.listdir(place.parent) == ["a.keys"]
    assert list(open_keys([tmp_path / "none", place], STAMP, unread)) == KEYS


def test_open_keys_of_few_records_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    assert list(open_keys([tmp_path / "a.keys"], STAMP, lister(KEYS[:-1]))) == KEYS[:-1]
    assert os.listdir(tmp_path) == []


def test_open_keys_of_a_database_that_has_changed_writes_it_anew(tmp_path: Path) -> None:
    place, changed = tmp_path / "a.keys", [b"x" + key for key in KEYS]
    open_keys([place], STAMP, lister(KEYS))
    assert list(open_keys([place], OTHER_STAMP, lister(changed))) == changed
    assert list(open_keys([place], OTHER_STAMP, unread)) == changed


@pytest.mark.parametrize(
    "damage", [lambda good: b"", lambda good: good[:-1], lambda good: good[:90] + b"?" + good[91:]]
)
def test_open_keys_of_a_damaged_index_writes_it_anew(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    place = tmp_path / "a.keys"
    open_keys([place], STAMP, lister(KEYS))
    good = place.read_bytes()
    place.write_bytes(damage(good))
    assert list(open_keys([place], STAMP, lister(KEYS))) == KEYS
    assert place.read_bytes() == good


def test_open_keys_where_the_first_place_cannot_be_written_takes_the_second(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = [tmp_path / "file" / "a.keys", tmp_path / "cache" / "a.keys"]
    open_keys(places, STAMP, lister(KEYS))
    assert places[1].is_file()
    assert list(open_keys(places, STAMP, unread)) == KEYS


def test_open_keys_where_nothing_can_be_written_keeps_them_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert list(open_keys([tmp_path / "file" / "a.keys"], STAMP, lister(KEYS))) == KEYS
    assert os.listdir(tmp_path) == ["file"]


def test_open_keys_on_a_full_disk_keeps_them_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(old: object, new: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    assert list(open_keys([tmp_path / "a.keys"], STAMP, lister(KEYS))) == KEYS
    assert os.listdir(tmp_path) == []


def test_open_keys_of_a_damaged_database_raises_and_writes_nothing(tmp_path: Path) -> None:
    def list_keys() -> Iterator[bytes]:
        yield from KEYS
        raise DataError("db: must be intact")

    with pytest.raises(DataError, match="must be intact"):
        open_keys([tmp_path / "a.keys"], STAMP, list_keys)
    assert os.listdir(tmp_path) == []


def test_open_keys_of_an_index_that_is_replaced_meanwhile_stays_as_it_was(tmp_path: Path) -> None:
    place, changed = tmp_path / "a.keys", [b"x" + key for key in KEYS]
    held = open_keys([place], STAMP, lister(KEYS))
    open_keys([place], OTHER_STAMP, lister(changed))
    assert list(held) == KEYS


def test_open_keys_by_several_processes_at_once_gives_each_all_keys(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dtrain.data.key_index import make_stamp, open_keys\n"
        "keys = [b'%d' % number for number in range(150_000)]\n"
        "sys.stdin.read(1)\n"
        "for turn in range(3):\n"
        "    found = open_keys([Path(sys.argv[1])], make_stamp(turn), lambda: iter(keys))\n"
        "    assert list(found) == keys\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a.keys")]
    started = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(3)]
    for process in started:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(100) for process in started] == [0, 0, 0]
    assert os.listdir(tmp_path) == ["a.keys"]


def test_open_keys_of_an_index_takes_no_memory_for_the_keys(tmp_path: Path) -> None:
    place = tmp_path / "a.keys"
    open_keys([place], STAMP, lambda: (b"%032d" % number for number in range(200_000)))
    assert place.stat().st_size > 200_000 * 32
    tracemalloc.start()
    found = open_keys([place], STAMP, unread)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[199_999] == b"%032d" % 199_999
    assert peak_bytes < 200_000


@pytest.mark.parametrize(
    ("env", "cache"), [({"XDG_CACHE_HOME": "/cache"}, "/cache/dtrain"), ({}, "/home/me/.cache/dtrain")]
)
def test_index_places_are_the_database_and_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], cache: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "db").mkdir()
    (tmp_path / "link").symlink_to("db")
    beside, cached = index_places(str(tmp_path / "db"), env)
    assert beside == tmp_path / "db" / INDEX_FILE
    assert str(cached.parent) == cache
    assert cached.name.startswith("db-")
    assert index_places(str(tmp_path / "link"), env) == [beside, cached]
    assert index_places(str(tmp_path), env)[1] != cached


def test_make_stamp_differs_with_every_fact() -> None:
    stamps = {make_stamp(*facts) for facts in [(), (1,), (1, 2), (12,), ("1",), (2, 1)]}
    assert len(stamps) == 6
