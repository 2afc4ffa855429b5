"""The kinds of databases that a data layer can read: the registry of record sources.

To add one, write its class in a file of its own and name it here by the word that prototxt's `backend` uses.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from dtrain.data.errors import DataError
from dtrain.data.leveldb_source import LeveldbSource
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.record_source import RecordSource

SOURCES: MappingProxyType[str, Callable[[str], RecordSource]] = MappingProxyType(
    {"LEVELDB": LeveldbSource, "LMDB": LmdbSource}
)


def open_source(backend: str, path: str) -> RecordSource:
    """Open the database at `path`, of the kind that SOURCES knows as `backend`.

    Raises DataError when the kind is unknown or the database is missing, damaged, foreign or empty.
    """
    if backend not in SOURCES:
        raise DataError(f"{path}: backend must be one of {', '.join(sorted(SOURCES))}, got {backend}")
    return SOURCES[backend](path)
