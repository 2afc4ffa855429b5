"""Records from a LevelDB, Caffe's default database: one Datum for each key, in the order of the keys.

A record source (the first stage of data/). LevelDB lets one process open a database, and writes while it opens one;
here every rank reads, perhaps from a read-only file system. So each opens a view of its own: a temporary folder with
links to the tables. Follows caffe's db_leveldb.cpp.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dtrain.data.datum import parse_datum
from dtrain.data.errors import DataError
from dtrain.data.key_index import INDEX_FILE, index_places, make_stamp, open_keys
from dtrain.data.record_source import RecordSource

_CURRENT = "CURRENT"
_FILE_OF_LMDB = "data.mdb"
_TABLE_ENDINGS = (".ldb", ".sst")
_MAX_OPEN_FILES = 100


class LeveldbSource(RecordSource):
    """Read the records of the LevelDB in the folder `path`.

    Raises DataError when it is missing, foreign, damaged or empty, record 0 is no Datum, or plyvel is not installed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._database: Any = None
        self._view = make_view(path)
        try:
            self._database = _open(path, self._view)
            stamp = make_stamp("LevelDB", *_list_files(path))
            self._keys = open_keys(index_places(path, os.environ), stamp, self._list_keys)
            if not self._keys:
                raise DataError(f"{path}: LevelDB must have at least one record, got none")
            self._check_first_record()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> memoryview:
        """Return the bytes of record `index`."""
        assert self._database is not None, f"{self.path} is closed"
        try:
            value = self._database.get(self._keys[index])
        except Exception as error:  # plyvel's own, which can't be named without importing it
            raise DataError(
                f'{self.path}: LevelDB must be intact, got at "{self.key(index)}": {error}'
            ) from None
        if value is None:
            raise DataError(
                f'{self.path}: LevelDB must be intact, got no record for the key "{self.key(index)}"'
            )
        return memoryview(value)

    def key(self, index: int) -> str:
        """Return the key of record `index`; bytes that are no text are escaped."""
        return self._keys[index].decode("utf-8", "backslashreplace")

    def describe(self) -> str:
        """Return path, kind and number of records."""
        return f"{self.path} (LevelDB, {len(self)} records)"

    def close(self) -> None:
        """Close the database and remove the view."""
        if self._database is not None:
            self._database.close()
            self._database = None
        shutil.rmtree(self._view, ignore_errors=True)

    def _list_keys(self) -> Iterator[bytes]:
        try:
            with self._database.iterator(
                include_value=False, verify_checksums=True, fill_cache=False
            ) as iterator:
                yield from iterator
        except Exception as error:  # as above
            raise DataError(f"{self.path}: LevelDB must be intact, got: {error}") from None

    def _check_first_record(self) -> None:
        try:
            parse_datum(self.read(0))
        except DataError as error:
            raise DataError(f'{self.path}: record "{self.key(0)}": {error.problem}') from None


def make_view(path: str) -> str:
    """Return a temporary folder that shows the LevelDB in `path`: tables by links, the small files copied.

    What LevelDB writes when it opens a database (logs, a manifest, merged tables) goes there.
    Raises DataError when there is no LevelDB.
    """
    folder = Path(path)
    if not folder.exists():
        raise DataError(f"{path}: LevelDB must exist, got no such folder")
    if not (folder / _CURRENT).is_file():
        got = "a file" if folder.is_file() else ", ".join(sorted(os.listdir(folder))[:4]) or "an empty folder"
        hint = "; it is an LMDB: set backend: LMDB" if (folder / _FILE_OF_LMDB).is_file() else ""
        raise DataError(f"{path}: LevelDB must be a folder with {_CURRENT} in it, got {got}{hint}")
    view = tempfile.mkdtemp(prefix="dtrain_leveldb_")
    for file in folder.iterdir():
        if file.suffix in _TABLE_ENDINGS:
            os.symlink(file.resolve(), os.path.join(view, file.name))
        elif _is_of_leveldb(file):
            shutil.copy(file, view)
    return view


def _is_of_leveldb(file: Path) -> bool:
    """Return whether the database is made of `file`, among others; its logs for people are no part of it."""
    return file.name not in ("LOCK", "LOG", "LOG.old", INDEX_FILE) and not file.name.endswith(".part")


def _list_files(path: str) -> list[tuple[str, int, int]]:
    """Return name, bytes and time of change of each file of the LevelDB, by name."""
    files = [(file.name, file.stat()) for file in sorted(Path(path).iterdir()) if _is_of_leveldb(file)]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in files]


def _open(path: str, view: str) -> Any:
    try:
        import plyvel
    except ImportError:
        raise DataError(
            f"{path}: backend LEVELDB needs plyvel, which is not installed: pip install 'dtrain[leveldb]', "
            "or convert the database to LMDB"
        ) from None
    try:
        return plyvel.DB(view, create_if_missing=False, paranoid_checks=True, max_open_files=_MAX_OPEN_FILES)
    except plyvel.Error as error:
        raise DataError(f"{path}: LevelDB must be intact, got: {str(error).replace(view, path)}") from None
