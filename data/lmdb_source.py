"""Records from an LMDB, Caffe's usual database: one Datum for each key, in the order of the keys.

A record source (the first stage of data/). One read transaction stays open as long as the source, so records
are views of the mapped file and nothing is copied. Follows caffe's db_lmdb.cpp, without its lock file.
"""

from __future__ import annotations

from collections.abc import Sequence

import lmdb

from dtrain.data.datum import parse_datum
from dtrain.data.errors import DataError
from dtrain.data.lmdb_environment import acquire_environment, describe_lmdb_error, release_environment
from dtrain.data.record_source import RecordSource


class LmdbSource(RecordSource):
    """Read the records of the LMDB in the folder `path`.

    Raises DataError when it is missing, foreign, truncated, damaged or empty, or record 0 is no Datum.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._shared = acquire_environment(path)
        self._transaction = self._shared.environment.begin(buffers=True)
        self._cursor = self._transaction.cursor()
        self._is_open = True
        try:
            self._check_first_record()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._shared.keys)

    def read(self, index: int) -> memoryview:
        """Return the bytes of record `index`, a view of the mapped file that is valid until close()."""
        return self.read_batch([index])[0]

    def read_batch(self, indices: Sequence[int]) -> list[memoryview]:
        """Return the bytes of many records in one call of LMDB, views that are valid until close()."""
        assert self._is_open, f"{self.path} is closed"
        keys = [self._shared.keys[index] for index in indices]
        try:
            pairs = self._cursor.getmulti(keys)
        except lmdb.Error as error:
            complaint = describe_lmdb_error(self.path, error)
            raise DataError(
                f'{self.path}: LMDB must be intact, got near record "{self.key(indices[0])}": {complaint}'
            ) from None
        if len(pairs) != len(keys):
            raise DataError(
                f"{self.path}: LMDB must be intact, got {len(keys) - len(pairs)} keys without a record"
            )
        return [value for _, value in pairs]

    def key(self, index: int) -> str:
        """Return the key of record `index`; bytes that are no text are escaped."""
        return self._shared.keys[index].decode("utf-8", "backslashreplace")

    def describe(self) -> str:
        """Return path, kind and number of records."""
        return f"{self.path} (LMDB, {len(self)} records)"

    def close(self) -> None:
        """Let go of the database; views that read() returned must no longer be used."""
        if self._is_open:
            self._is_open = False
            self._cursor.close()
            self._transaction.abort()
            # Gone before the environment: py-lmdb before 2.0 touches its map when they are collected.
            del self._cursor, self._transaction
            release_environment(self._shared)

    def _check_first_record(self) -> None:
        try:
            parse_datum(self.read(0))
        except DataError as error:
            raise DataError(f'{self.path}: record "{self.key(0)}": {error.problem}') from None
