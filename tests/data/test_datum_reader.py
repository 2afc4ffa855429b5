"""Tests of data/datum_reader.py."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from dtrain.data.batch import Batch
from dtrain.data.datum_reader import DatumReader
from dtrain.data.errors import DataError
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.picture import Colors
from dtrain.data.sampler import Sampler
from dtrain.data.transformer import Transformer, TransformSpec
from dtrain.proto import caffe_pb2

MakeLmdb = Callable[..., str]
MakeDatum = Callable[..., bytes]


def make_reader(path: str, spec: TransformSpec | None = None, train: bool = True) -> DatumReader:
    source = LmdbSource(path)
    return DatumReader(source, Sampler(len(source)), Transformer(spec or TransformSpec(), train=train))


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
        "size must be 2x3x4 like that of ": make_datum(images[0][:, :2].copy()),
        "byte 6: field must have at most the 20 bytes that are left, got 24": whole[:28],
        "JPEG must be whole, got one that ends before its pixels": jpeg,
    }
    for complaint, value in bad.items():
        path = make_lmdb([whole, whole, value])
        reader = make_reader(path)
        read(reader, [0, 1])
        with pytest.raises(DataError) as caught:
            read(reader, [1, 2])
        assert caught.value.problem.startswith(f'{path}: record "00000002": {complaint}')


def test_reader_of_a_damaged_first_record_says_so(make_lmdb: MakeLmdb) -> None:
    path = make_lmdb([caffe_pb2.Datum(data=b"\xff\xd8\xff", encoded=True).SerializeToString()])
    assert complaint_of(lambda: make_reader(path)).startswith(
        f'{path}: record "00000000": JPEG must be whole'
    )


def compress(pixels: NDArray[np.uint8], kind: str, label: int = 0) -> bytes:
    """Return the record of an image (H, W, 3), blue before red, or (H, W)."""
    file = io.BytesIO()
    Image.fromarray(pixels if pixels.ndim == 2 else pixels[..., ::-1]).save(file, kind)
    return caffe_pb2.Datum(data=file.getvalue(), encoded=True, label=label).SerializeToString()


COLORS = np.random.default_rng(3).integers(0, 256, (6, 9, 8, 3), np.uint8)
# libpng's weights of blue, green and red.
GRAYS = ((COLORS @ np.array([3736, 19235, 9797])) >> 15).astype(np.uint8)


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (Colors.STORED, COLORS.transpose(0, 3, 1, 2)),
        (Colors.COLOR, COLORS.transpose(0, 3, 1, 2)),
        (Colors.GRAY, GRAYS[:, np.newaxis]),
    ],
)
def test_read_of_compressed_records_decodes_them(
    make_lmdb: MakeLmdb, colors: Colors, expected: NDArray[np.uint8]
) -> None:
    values = [compress(image, "PNG", 10 + label) for label, image in enumerate(COLORS)]
    reader = make_reader(make_lmdb(values), TransformSpec(colors=colors))
    assert reader.record_shape == expected.shape[1:]
    batch = read(reader, [4, 0, 11])
    assert np.array_equal(batch.data, expected[[4, 0, 5]])
    assert batch.labels.tolist() == [14, 10, 15]
    assert batch.epochs.tolist() == [0, 0, 1]


def test_read_of_compressed_grey_records_keeps_one_channel_unless_forced(make_lmdb: MakeLmdb) -> None:
    path = make_lmdb([compress(image, "PNG") for image in GRAYS])
    assert np.array_equal(read(make_reader(path), [2]).data, GRAYS[2:3, np.newaxis])
    forced = read(make_reader(path, TransformSpec(colors=Colors.COLOR)), [2]).data
    assert np.array_equal(forced, GRAYS[2:3, np.newaxis].repeat(3, axis=1))


def test_read_of_jpegs_is_what_simplejpeg_decodes(make_lmdb: MakeLmdb) -> None:
    values = [compress(image, "JPEG") for image in COLORS]
    jpegs = [caffe_pb2.Datum.FromString(value).data for value in values]
    spec = TransformSpec(0.5, crop_size=4, mean_values=(9,))
    reader = make_reader(make_lmdb(values), spec, train=False)
    expected = np.stack([simplejpeg.decode_jpeg(jpeg, "BGR").transpose(2, 0, 1) for jpeg in jpegs])
    batch = read(reader, list(range(6)))
    assert np.array_equal(batch.data, 0.5 * (expected[:, :, 2:6, 2:6] - np.float32(9)))


def test_read_of_compressed_and_plain_records_mixed_returns_both(
    make_lmdb: MakeLmdb, make_datum: MakeDatum
) -> None:
    planes = COLORS.transpose(0, 3, 1, 2)
    values = [
        compress(image, "PNG") if index % 2 else make_datum(planes[index].copy(), index)
        for index, image in enumerate(COLORS)
    ]
    for rotation in (0, 1):  # the first record is of one or the other kind
        batch = read(make_reader(make_lmdb(values[rotation:])), list(range(5)))
        assert np.array_equal(batch.data, planes[rotation : rotation + 5])


def test_read_of_records_of_several_sizes_fits_the_batch_to_each(make_lmdb: MakeLmdb) -> None:
    path = make_lmdb([compress(image[: 9 - index], "PNG") for index, image in enumerate(COLORS)])
    reader = make_reader(path)
    assert reader.shapes == ((3, 9, 8), ())
    batch = Batch(1, reader.shapes)
    for index in (0, 3, 1):
        reader.read(np.array([index]), batch)
        assert np.array_equal(batch.data[0], COLORS[index, : 9 - index].transpose(2, 0, 1))
    cropping = make_reader(path, TransformSpec(crop_size=4))
    assert read(cropping, list(range(6))).data.shape == (6, 3, 4, 4)
    problem = complaint_of(lambda: read(reader, [0, 1]))
    assert problem.startswith(
        f'{path}: record "00000001": size must be 3x9x8 like that of {path}: record "00000000"'
    )


@pytest.mark.parametrize("is_compressed", [False, True])
def test_reader_notes_colors_where_the_first_record_is_not_compressed(
    is_compressed: bool, make_lmdb: MakeLmdb, make_datum: MakeDatum, caplog: pytest.LogCaptureFixture
) -> None:
    plain = COLORS[0].transpose(2, 0, 1).copy()
    path = make_lmdb([compress(COLORS[0], "PNG") if is_compressed else make_datum(plain)])
    with caplog.at_level(logging.WARNING):
        reader = make_reader(path, TransformSpec(colors=Colors.GRAY))
    assert reader.record_shape == ((1, 9, 8) if is_compressed else (3, 9, 8))
    warning = "transform_param: force_color and force_gray are for compressed images only"
    assert caplog.messages == [] if is_compressed else [warning]


def test_reader_of_records_smaller_than_the_crop_says_so(
    make_lmdb: MakeLmdb, make_datum: MakeDatum, images: NDArray[np.uint8]
) -> None:
    path = make_lmdb([make_datum(images[0])])
    spec = TransformSpec(crop_size=5)
    assert "crop_size must fit into the records of 2x3x4, got 5" in complaint_of(
        lambda: make_reader(path, spec)
    )
