"""What every source of records is to a loader: a numbered list of Datums on the wire.

The first stage of data/: database → source → Datum → transformer → batch. Each kind of database is one file
with one class; source.py lists them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence


class RecordSource(ABC):
    """Records numbered 0 … len − 1 in the order of the file (LMDB: of the keys).

    Opening one checks what can be checked without reading every record and raises DataError. A source may be
    read from any thread, by one thread at a time.

    path: the database as the user named it, for messages.
    """

    path: str

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records, at least 1."""

    @abstractmethod
    def read(self, index: int) -> memoryview:
        """Return the bytes of record `index`, a Datum on the wire.

        The view may share the source's memory: it is valid until close(), and to be used no longer.
        Raises DataError when the database is damaged there.
        """

    def read_batch(self, indices: Sequence[int]) -> list[memoryview]:
        """Return what read() returns for each of `indices`; a source that can do better overrides this."""
        return [self.read(index) for index in indices]

    @abstractmethod
    def key(self, index: int) -> str:
        """Return the name of record `index`, for messages."""

    @abstractmethod
    def describe(self) -> str:
        """Return one phrase for the log: path, kind, number of records."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database; a second call does nothing."""
