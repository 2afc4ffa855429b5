"""Tests of data/lmdb_source.py."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.errors import DataError
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.lmdb_writer import write_lmdb

MakeLmdb = Callable[..., str]
MakeDatum = Callable[..., bytes]


@pytest.fixture
def values(make_datum: MakeDatum, images: NDArray[np.uint8]) -> list[bytes]:
    return [make_datum(image, label) for label, image in enumerate(images)]


def test_read_of_records_written_in_any_order_goes_by_key(tmp_path: Path, values: list[bytes]) -> None:
    records = [(b"%d" % index, value) for index, value in enumerate(values)]
    random.Random(1).shuffle(records)
    write_lmdb(tmp_path / "db", records)
    source = LmdbSource(str(tmp_path / "db"))
    assert len(source) == 10
    assert [bytes(source.read(index)) for index in range(10)] == values
    assert [source.key(index) for index in range(10)] == [str(index) for index in range(10)]
    source.close()


def test_read_batch_with_repeats_keeps_the_order_asked_for(make_lmdb: MakeLmdb, values: list[bytes]) -> None:
    source = LmdbSource(make_lmdb(values))
    asked = [9, 0, 3, 3, 9]
    assert [bytes(view) for view in source.read_batch(asked)] == [values[index] for index in asked]
    source.close()


def test_read_views_stay_valid_while_more_is_read(make_lmdb: MakeLmdb, values: list[bytes]) -> None:
    source = LmdbSource(make_lmdb(values))
    views = [source.read(index) for index in range(10)]
    source.read_batch(list(range(10)) * 20)
    assert [bytes(view) for view in views] == values
    del views
    source.close()


def test_read_from_another_thread_works(make_lmdb: MakeLmdb, values: list[bytes]) -> None:
    source = LmdbSource(make_lmdb(values))
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.extend(bytes(source.read(index)) for index in range(10)))
    reader.start()
    reader.join()
    assert found == values
    source.close()


def test_sources_of_one_database_are_independent(make_lmdb: MakeLmdb, values: list[bytes]) -> None:
    path = make_lmdb(values)
    train, test = LmdbSource(path), LmdbSource(path)
    train.close()
    train.close()
    assert bytes(test.read(4)) == values[4]
    with pytest.raises(AssertionError, match="is closed"):
        train.read(0)
    test.close()


def test_opening_records_that_are_no_datum_names_the_first(make_lmdb: MakeLmdb) -> None:
    path = make_lmdb([b"\x0bhello", b"world"])
    with pytest.raises(DataError) as caught:
        LmdbSource(path)
    assert caught.value.problem.startswith(f'{path}: record "00000000": byte 0: wire type must be')


def test_key_that_is_no_text_is_escaped(tmp_path: Path, values: list[bytes]) -> None:
    write_lmdb(tmp_path / "db", [(b"\xff1", values[0])])
    source = LmdbSource(str(tmp_path / "db"))
    assert source.key(0) == "\\xff1"
    source.close()


def test_describe_of_a_source_names_path_kind_and_size(make_lmdb: MakeLmdb, values: list[bytes]) -> None:
    path = make_lmdb(values)
    source = LmdbSource(path)
    assert source.describe() == f"{path} (LMDB, 10 records)"
    source.close()
