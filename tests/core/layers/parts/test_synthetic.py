"""Layers whose records are made up: where the records' shape comes from, for each type of layer that reads."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.layers import LAYERS, LayerContext
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.random_streams import RandomStreams
from dtrain.data.errors import DataError
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Shard
from dtrain.data.synthetic_reader import Synthetic
from dtrain.proto import caffe_pb2
from tests.core.layers.image_files import write_images

ASKED = Synthetic()
DATA = 'type: "Data" data_param { source: "lmdb" backend: LMDB batch_size: 4 }'
IMAGE_DATA = 'type: "ImageData" image_data_param { source: "list.txt" root_folder: "img/" batch_size: 4 '
WINDOW_DATA = (
    'type: "WindowData" window_data_param { source: "windows.txt" root_folder: "img/" batch_size: 4 }'
)
HDF5_DATA = 'type: "HDF5Data" hdf5_data_param { source: "files.txt" batch_size: 4 }'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(
    fields: str, synthetic: Synthetic = ASKED, num_tops: int = 2, phase: int = caffe_pb2.TRAIN
) -> ReadingLayer:
    """Return a layer that makes up its records, set up."""
    param = text_format.Parse(f'name: "data" {fields}', caffe_pb2.LayerParameter())
    param.top.extend(["data", "label", "more"][:num_tops])
    context = LayerContext(
        phase, create_engine("reference"), RandomStreams(1), Shard(0, 1), synthetic=synthetic
    )
    layer = LAYERS[param.type](param, context)
    assert isinstance(layer, ReadingLayer)
    layer.setup([], [Blob() for _ in range(num_tops)])
    return layer


def read(layer: ReadingLayer) -> list[np.ndarray]:
    """Return the tops of a first batch; reading ends with it."""
    top = [Blob() for _ in layer.param.top]
    layer.reshape([], top)
    layer.forward([], top)
    layer.close()
    return [blob.data.copy() for blob in top]


def write_records(folder: Path) -> None:
    """Write a database of 12 records of 2x5x6."""
    datum = caffe_pb2.Datum(channels=2, height=5, width=6, data=bytes(60)).SerializeToString()
    write_lmdb(folder / "lmdb", ((b"%08d" % i, datum) for i in range(12)))


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        (f"{DATA} transform_param {{ crop_size: 7 }}", (3, 7, 7)),
        (f'{DATA} transform_param {{ crop_size: 7 mean_file: "absent" mirror: true }}', (3, 7, 7)),
        (IMAGE_DATA + "new_height: 9 new_width: 8 }", (3, 9, 8)),
        (
            IMAGE_DATA + "new_height: 9 new_width: 8 is_color: false } transform_param { crop_size: 5 }",
            (1, 5, 5),
        ),
        (IMAGE_DATA + "shuffle: true } transform_param { crop_size: 5 }", (3, 5, 5)),
        (f"{WINDOW_DATA} transform_param {{ crop_size: 6 mean_value: 10 }}", (3, 6, 6)),
    ],
)
def test_made_up_images_without_data_have_the_shape_of_the_fields(
    folder: Path, fields: str, shape: tuple[int, ...]
) -> None:
    images, labels = read(make(fields))
    assert images.shape == (4, *shape)
    assert images.std() > 50  # even bytes: 73.9
    assert set(labels) <= {0, 1}


@pytest.mark.parametrize("fields", [DATA, IMAGE_DATA + "}", IMAGE_DATA + "new_height: 9 new_width: 8 }"])
def test_made_up_images_of_a_given_shape_have_it(folder: Path, fields: str) -> None:
    assert read(make(fields, Synthetic(((2, 4, 3),))))[0].shape == (4, 2, 4, 3)


def test_made_up_images_have_the_shape_and_number_of_the_data_that_are_there(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_records(folder)
    with caplog.at_level(logging.INFO):
        layer = make(f"{DATA} transform_param {{ crop_size: 3 }}")
    assert layer.num_records == 12
    images, _ = read(layer)
    assert images.shape == (4, 2, 3, 3)
    assert images.any()  # those of the database are 0
    assert 'layer "data": 12 made-up records of 2x5x6,1, after the first record of lmdb' in caplog.messages


def test_made_up_images_of_a_list_that_is_there_have_the_shape_of_its_first(folder: Path) -> None:
    write_images(folder)
    layer = make(IMAGE_DATA + "rand_skip: 3 }")
    assert layer.num_records == 6
    assert read(layer)[0].shape == (4, 3, 7, 8)


def test_made_up_images_of_damaged_data_say_so_and_have_the_shape_of_the_fields(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "list.txt").write_text("absent.png 1\n")
    layer = make(IMAGE_DATA + "} transform_param { crop_size: 5 }")
    assert read(layer)[0].shape == (4, 3, 5, 5)
    assert any("no record can be a model" in text and "absent.png" in text for text in caplog.messages)


@pytest.mark.parametrize("fields", [DATA, IMAGE_DATA + "}", HDF5_DATA])
def test_made_up_records_of_no_known_shape_raise(folder: Path, fields: str) -> None:
    with pytest.raises(UserError, match=r"made-up records must have a shape.*give --synthetic CxHxW"):
        make(fields)


@pytest.mark.parametrize(
    ("shapes", "text"), [(((10, 4),), "10x4"), (((1, 2, 2), ()), "1x2x2,1"), (((),), "1")]
)
def test_made_up_images_of_a_shape_that_is_none_raise(
    folder: Path, shapes: tuple[tuple[int, ...], ...], text: str
) -> None:
    with pytest.raises(UserError, match=f"images must be given as CxHxW, got {text}$"):
        make(DATA, Synthetic(shapes))


def test_made_up_images_that_are_smaller_than_the_crop_raise(folder: Path) -> None:
    with pytest.raises(DataError, match="crop_size must fit into the records of 1x4x4, got 7"):
        make(f"{DATA} transform_param {{ crop_size: 7 }}", Synthetic(((1, 4, 4),)))


def test_made_up_rows_have_the_given_shapes_and_numbers_beside_them(folder: Path) -> None:
    data, label, more = read(make(HDF5_DATA, Synthetic(((10,),)), num_tops=3))
    assert (data.shape, label.shape, more.shape) == ((4, 10), (4,), (4,))
    assert 0 <= data.min() < data.max() < 1
    assert set(label) | set(more) <= {0, 1}
    shapes = ((8, 2), (8,), ())
    tops = read(make(HDF5_DATA, Synthetic(shapes), num_tops=3))
    assert [top.shape for top in tops] == [(4, *shape) for shape in shapes]


def test_made_up_rows_of_more_shapes_than_tops_raise(folder: Path) -> None:
    with pytest.raises(UserError, match="2 tops must have at most as many shapes, got 3,4,1"):
        make(HDF5_DATA, Synthetic(((3,), (4,), ())))


def test_made_up_rows_have_the_shapes_of_the_files_that_are_there(folder: Path) -> None:
    with h5py.File(folder / "file.h5", "w") as contents:
        contents["data"], contents["label"] = np.zeros((5, 2, 3)), np.zeros((5, 4))
    (folder / "files.txt").write_text("file.h5\n")
    layer = make(HDF5_DATA)
    assert layer.num_records == 5
    data, label = read(layer)
    assert (data.shape, label.shape) == ((4, 2, 3), (4, 4))
    assert data.any()


def test_made_up_images_in_test_are_cut_out_of_the_middle(folder: Path) -> None:
    whole = read(make(DATA, Synthetic(((1, 6, 6),))))[0]
    cut = read(
        make(f"{DATA} transform_param {{ crop_size: 4 }}", Synthetic(((1, 6, 6),)), phase=caffe_pb2.TEST)
    )[0]
    np.testing.assert_array_equal(cut, whole[:, :, 1:5, 1:5])
