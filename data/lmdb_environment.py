"""An LMDB opened for reading, checked, and shared by all that read it in this process.

Below lmdb_source. LMDB maps its file into memory and believes what is written there: a file cut short would
end the process by SIGBUS, so its size is compared with what it says of itself before any page is touched.
LMDB also refuses to open a file twice in one process, which train and test nets do; so environments are
shared, by file, and counted.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb

from dtrain.data.errors import DataError
from dtrain.data.key_index import index_places, make_stamp, open_keys
from dtrain.data.key_table import KeyTable

DATA_FILE = "data.mdb"
_FILE_OF_LEVELDB = "CURRENT"

_FileId = tuple[int, int]  # device and inode


@dataclass(slots=True)
class LmdbEnvironment:
    """An open environment and the keys of all records, in order, at least one."""

    environment: lmdb.Environment
    keys: KeyTable
    file_id: _FileId
    num_users: int = 0


_lock = threading.Lock()
_open_environments: dict[_FileId, LmdbEnvironment] = {}


def acquire_environment(path: str) -> LmdbEnvironment:
    """Open the LMDB in the folder `path`, or share it where it is open; give it back by release_environment.

    Raises DataError when it is missing, no LMDB, truncated, damaged or empty.
    """
    data_file = _find_data_file(path)
    status = data_file.stat()
    file_id = (status.st_dev, status.st_ino)
    with _lock:
        if file_id not in _open_environments:
            _open_environments[file_id] = _open(path, status, file_id)
        shared = _open_environments[file_id]
        shared.num_users += 1
    return shared


def release_environment(shared: LmdbEnvironment) -> None:
    """Give back what acquire_environment returned; the last user closes it."""
    with _lock:
        shared.num_users -= 1
        if shared.num_users == 0:
            del _open_environments[shared.file_id]
            shared.environment.close()


def describe_lmdb_error(path: str, error: lmdb.Error) -> str:
    """Return LMDB's own complaint without its prefixes (the path, MDB_…)."""
    text = str(error).removeprefix(f"{path}: ")
    if text.startswith("MDB_") and ": " in text:
        text = text.split(": ", 1)[1]
    return text


def _find_data_file(path: str) -> Path:
    folder = Path(path)
    if not folder.exists():
        raise DataError(f"{path}: LMDB must exist, got no such file or folder")
    if not folder.is_dir():
        raise DataError(f"{path}: LMDB must be a folder with {DATA_FILE} in it, got a file")
    data_file = folder / DATA_FILE
    if not data_file.is_file():
        found = ", ".join(sorted(os.listdir(folder))[:4]) or "an empty folder"
        hint = "; it is a LevelDB: set backend: LEVELDB" if (folder / _FILE_OF_LEVELDB).is_file() else ""
        raise DataError(f"{path}: LMDB must be a folder with {DATA_FILE} in it, got {found}{hint}")
    return data_file


def _open(path: str, data_file: os.stat_result, file_id: _FileId) -> LmdbEnvironment:
    if data_file.st_size == 0:
        raise DataError(f"{path}: {DATA_FILE} must be an LMDB file, got an empty file")
    try:
        # No lock: a training set is not written while it is read, and it may lie on a read-only file system.
        environment = lmdb.open(path, readonly=True, lock=False, create=False, readahead=True)
    except lmdb.Error as error:
        raise DataError(
            f"{path}: {DATA_FILE} must be an LMDB file, got: {describe_lmdb_error(path, error)}"
        ) from None
    try:
        _check_size(path, environment, data_file.st_size)
        keys = _open_keys(path, environment, data_file)
    except BaseException:
        environment.close()
        raise
    return LmdbEnvironment(environment, keys, file_id)


def _check_size(path: str, environment: lmdb.Environment, size_bytes: int) -> None:
    needed_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if size_bytes < needed_bytes:
        raise DataError(
            f"{path}: {DATA_FILE} must have at least {needed_bytes} bytes, got {size_bytes}; "
            "it is truncated, copy it again"
        )


def _open_keys(path: str, environment: lmdb.Environment, data_file: os.stat_result) -> KeyTable:
    num_records, last_txnid = environment.stat()["entries"], environment.info()["last_txnid"]
    stamp = make_stamp("LMDB", data_file.st_size, data_file.st_mtime_ns, last_txnid, num_records)
    keys = open_keys(
        index_places(path, os.environ), stamp, lambda: _list_keys(path, environment, num_records)
    )
    if not keys:
        raise DataError(f"{path}: LMDB must have at least one record, got none")
    return keys


def _list_keys(path: str, environment: lmdb.Environment, num_records: int) -> Iterator[bytes]:
    num_keys = 0
    try:
        with environment.begin() as transaction:
            for key in transaction.cursor().iternext(keys=True, values=False):
                yield key
                num_keys += 1
    except lmdb.Error as error:
        raise DataError(f"{path}: LMDB must be intact, got: {describe_lmdb_error(path, error)}") from None
    if num_keys != num_records:
        raise DataError(
            f"{path}: LMDB must be intact, got {num_keys} keys where it says {num_records} records"
        )
