"""Writes LMDBs, whole or not at all: the end of every converter, and what lmdb_source reads.

Records go into a temporary folder beside the target, which is renamed when all are on the disk. A failure, a
full disk included, leaves nothing behind, and what exists is never touched.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import lmdb

from dtrain.data.errors import DataError

NUM_RECORDS_PER_COMMIT = 1000
_FIRST_MAP_BYTES = 1 << 30  # address space, not disk; doubled as often as needed

Record = tuple[bytes, bytes]  # key (1 to 511 bytes), value


def write_lmdb(path: str | Path, records: Iterable[Record], map_bytes: int = _FIRST_MAP_BYTES) -> int:
    """Write `records` to a new LMDB in the folder `path` and return how many they were.

    Arguments:
        path: a folder that does not exist yet, in one that does.
        records: (key, value) pairs with distinct keys, in any order, at least one.
        map_bytes: size of the memory map to start with.
    Raises DataError when the path exists or can't be written, a key comes twice or there is no record.
    """
    target = Path(path)
    _refuse_existing(target)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    with _failures_as_sentences(target):
        try:
            part.mkdir()
            num_records = _write_records(part, target, records, map_bytes)
            # rename would replace an empty folder made meanwhile.
            _refuse_existing(target)
            part.rename(target)
            _sync_folder(target.parent)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return num_records


def write_splits(folder: str | Path, splits: Mapping[str, Iterable[Record]]) -> dict[str, int]:
    """Write one LMDB for each of `splits` (name → records) into `folder`, all of them or none.

    The folder is made where it is missing. Result: the number of records of each. Raises DataError as
    write_lmdb does.
    """
    out = Path(folder)
    for name in splits:
        _refuse_existing(out / name)
    is_new = not out.exists()
    written: dict[str, int] = {}
    try:
        with _failures_as_sentences(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, records in splits.items():
            written[name] = write_lmdb(out / name, records)
    except BaseException:
        for name in written:
            shutil.rmtree(out / name)
        if is_new:
            # It is not empty when somebody else has put something there meanwhile, or was never made.
            with suppress(OSError):
                out.rmdir()
        raise
    return written


def _write_records(part: Path, target: Path, records: Iterable[Record], map_bytes: int) -> int:
    num_records = 0
    remaining = iter(records)
    # Nobody else sees the folder yet: no lock file, and one sync at the end will do.
    with lmdb.open(str(part), map_size=map_bytes, lock=False, sync=False, mode=0o664) as environment:
        while chunk := list(islice(remaining, NUM_RECORDS_PER_COMMIT)):
            _commit(environment, target, chunk)
            num_records += len(chunk)
        environment.sync(True)
    if not num_records:
        raise DataError(f"{target}: LMDB must get at least one record, got none")
    return num_records


def _commit(environment: lmdb.Environment, target: Path, chunk: list[Record]) -> None:
    while True:
        try:
            with environment.begin(write=True) as transaction:
                for key, value in chunk:
                    if not transaction.put(key, value, overwrite=False):
                        raise DataError(f"{target}: keys must differ, got {key!r} twice")
            return
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])


def _refuse_existing(target: Path) -> None:
    if os.path.lexists(target):
        raise DataError(
            f"{target}: must not exist yet, got a {'folder' if target.is_dir() else 'file'}; remove it first"
        )


@contextmanager
def _failures_as_sentences(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: must be writable, got: {error.strerror or error}") from error
    except lmdb.Error as error:
        raise DataError(f"{target}: must be writable as LMDB, got: {error}") from error


def _sync_folder(folder: Path) -> None:
    """Make the rename last through a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
