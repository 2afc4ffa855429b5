"""Tests of data/source.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.data.source import SOURCES, open_source


def test_open_source_of_each_kind_returns_its_records(
    make_lmdb: Callable[..., str],
    make_leveldb: Callable[..., str],
    make_datum: Callable[..., bytes],
    images: NDArray[np.uint8],
) -> None:
    values = [make_datum(image) for image in images]
    databases = {"LMDB": make_lmdb(values), "LEVELDB": make_leveldb(values)}
    assert databases.keys() == SOURCES.keys()
    for backend, path in databases.items():
        source = open_source(backend, path)
        assert [bytes(source.read(index)) for index in range(len(source))] == values
        source.close()


def test_open_source_of_an_unknown_kind_lists_the_known() -> None:
    with pytest.raises(DataError, match=r"^db: backend must be one of LEVELDB, LMDB, got ROCKSDB$"):
        open_source("ROCKSDB", "db")
