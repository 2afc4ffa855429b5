"""Tests of data/datum_reader.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data.batch import Batch
from dtrain.data.datum_reader import DatumReader
from dtrain.data.errors import DataError
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2

MakeLmdb = Callable[..., str]
MakeDatum = Callable[..., bytes]


def make_reader(path: str, spec: TransformSpec | None = None) -> DatumReader:
    source = LmdbSource(path)
    return DatumReader(source, Sampler(len(source)), Transformer(spec or TransformSpec(), train=True))


def read(reader: DatumReader, positions: list[int]) -> Batch:
    batch = Batch(len(positions), reader.shapes)
    reader.read(np.array(positions), batch)
    return batch


@pytest.mark.parametrize("first_label", [0, 125, 1000, -5])
def test_read_of_any_labels_returns_records_and_their_numbers(
    first_label: int, make_lmdb: MakeLmdb, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    values = [make_datum(image, first_label + index) for index, image in enumerate(images)]
    batch = read(make_reader(make_lmdb(values)), [3, 9, 10, 25])
    assert batch.epochs.tolist() == [0, 0, 1, 2]
    assert batch.indices.tolist() == [3, 9, 0, 5]
    assert batch.labels.tolist() == [first_label + index for index in (3, 9, 0, 5)]
    assert np.array_equal(batch.data, images[[3, 9, 0, 5]])


def test_read_of_bytes_and_floats_mixed_returns_both(
    make_lmdb: MakeLmdb, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    values = [
        make_datum(image if index % 2 else image + np.float32(0.5)) for index, image in enumerate(images)
    ]
    batch = read(make_reader(make_lmdb(values)), list(range(10)))
    halves = np.where(np.arange(10) % 2, 0, 0.5).reshape(10, 1, 1, 1)
    assert np.array_equal(batch.data, images + halves)


def test_shape_of_a_reader_is_known_after_the_crop(
    make_lmdb: MakeLmdb, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    reader = make_reader(make_lmdb([make_datum(image) for image in images]), TransformSpec(crop_size=2))
    assert (reader.record_shape, reader.shapes) == ((2, 3, 4), ((2, 2, 2), ()))


def complaint_of(read_it: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        read_it()
    return caught.value.problem


def test_read_of_a_bad_record_names_database_and_record(
    make_lmdb: MakeLmdb, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    whole = make_datum(images[0])
    jpeg = caffe_pb2.Datum(data=b"\xff\xd8\xff", label=1, encoded=True).SerializeToString()
    bad = {
        "size must be 2x3x4 like the first record's, got 2x2x4": make_datum(images[0][:, :2].copy()),
        "byte 6: field must have at most the 20 bytes that are left, got 24": whole[:28],
        "image must be stored as pixels, got a compressed one": jpeg,
    }
    for complaint, value in bad.items():
        path = make_lmdb([whole, whole, value])
        reader = make_reader(path)
        read(reader, [0, 1])
        with pytest.raises(DataError) as caught:
            read(reader, [1, 2])
        assert caught.value.problem.startswith(f'{path}: record "00000002": {complaint}')


def test_reader_of_a_compressed_first_record_says_so(make_lmdb: MakeLmdb) -> None:
    path = make_lmdb([caffe_pb2.Datum(data=b"\xff\xd8\xff", encoded=True).SerializeToString()])
    assert complaint_of(lambda: make_reader(path)).startswith(
        f'{path}: record "00000000": image must be stored'
    )


def test_reader_of_records_smaller_than_the_crop_says_so(
    make_lmdb: MakeLmdb, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    path = make_lmdb([make_datum(images[0])])
    spec = TransformSpec(crop_size=5)
    assert "crop_size must fit into the records of 2x3x4, got 5" in complaint_of(
        lambda: make_reader(path, spec)
    )
