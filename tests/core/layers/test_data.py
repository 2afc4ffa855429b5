from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.layers import LAYERS, LayerContext
from dtrain.core.random_streams import RandomStreams
from dtrain.data.errors import DataError
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
NUM_RECORDS, NUM_READ = 12, 6
IMAGES = np.random.default_rng(2).integers(0, 256, (NUM_RECORDS, 2, 5, 5), dtype=np.uint8)
SOURCE = 'data_param { source: "lmdb" backend: LMDB batch_size: 6 }'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with lmdb and mean.binaryproto (every value 10)."""
    monkeypatch.chdir(tmp_path)
    datums = [
        caffe_pb2.Datum(channels=2, height=5, width=5, label=3 * i, data=image.tobytes())
        for i, image in enumerate(IMAGES)
    ]
    write_lmdb(tmp_path / "lmdb", ((b"%08d" % i, d.SerializeToString()) for i, d in enumerate(datums)))
    mean = caffe_pb2.BlobProto(num=1, channels=2, height=5, width=5, data=[10.0] * 50)
    (tmp_path / "mean.binaryproto").write_bytes(mean.SerializeToString())
    return tmp_path


def read(
    fields: str, phase: int = TRAIN, net_path: str = "", num_batches: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels of the first batches of a Data layer named by its net file."""
    param = text_format.Parse(f'name: "data" type: "Data" {fields}', caffe_pb2.LayerParameter())
    context = LayerContext(
        phase, create_engine("reference"), RandomStreams(1), Shard(0, 1), net_path=net_path
    )
    layer, top = LAYERS["Data"](param, context), [Blob(), Blob()]
    layer.setup([], top)
    layer.reshape([], top)
    batches = []
    for _ in range(num_batches):
        layer.forward([], top)
        batches.append([blob.data.copy() for blob in top])
    layer.close()  # type: ignore[attr-defined]
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images, labels


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        ("", IMAGES[:NUM_READ]),
        ("scale: 0.5", 0.5 * IMAGES[:NUM_READ]),
        ("mean_value: 4 scale: 2", 2 * (IMAGES[:NUM_READ] - 4.0)),
        ('mean_file: "mean.binaryproto"', IMAGES[:NUM_READ] - 10.0),
        ("crop_size: 3", IMAGES[:NUM_READ, :, 1:4, 1:4]),  # in TEST from the middle
    ],
)
def test_data_puts_out_transformed_images_and_labels(
    folder: Path, transform: str, expected: np.ndarray
) -> None:
    images, labels = read(f"{SOURCE} transform_param {{ {transform} }}", TEST)
    np.testing.assert_allclose(images, expected, rtol=1e-6)
    assert labels.tolist() == [0, 3, 6, 9, 12, 15]


def test_data_in_train_crops_anywhere(folder: Path) -> None:
    images, _ = read(f"{SOURCE} transform_param {{ crop_size: 3 }}", num_batches=4)
    offsets = set()
    for k, image in enumerate(images):
        whole = IMAGES[k % NUM_RECORDS]
        found = [
            (i, j)
            for i in range(3)
            for j in range(3)
            if np.array_equal(image, whole[:, i : i + 3, j : j + 3])
        ]
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 4  # of 9, in 24 draws


def write_compressed(folder: Path) -> np.ndarray:
    """Write PNGs of three channels to the database "compressed"; return them as (N, 3, 5, 5), blue first."""
    colors = np.concatenate([IMAGES, IMAGES[:, :1]], axis=1)
    values = []
    for image in colors:
        file = io.BytesIO()
        Image.fromarray(image[::-1].transpose(1, 2, 0)).save(file, "PNG")
        values.append(caffe_pb2.Datum(data=file.getvalue(), encoded=True, label=7).SerializeToString())
    write_lmdb(folder / "compressed", ((b"%08d" % i, value) for i, value in enumerate(values)))
    return colors


@pytest.mark.parametrize(
    ("fields", "is_gray"),
    [
        ("", False),
        ("force_encoded_color: true", False),
        ("transform_param { force_color: true }", False),
        ("transform_param { force_gray: true }", True),
        ("dtrain_param { decode_threads: 3 }", False),
    ],
)
def test_data_decodes_compressed_records_to_the_colors_asked_for(
    folder: Path, fields: str, is_gray: bool
) -> None:
    colors = write_compressed(folder)
    source = SOURCE.replace("lmdb", "compressed")
    images, labels = read(f"{source} {fields}" if "{" in fields else f"{source[:-1]} {fields} }}")
    if is_gray:  # libpng's weights of blue, green and red
        colors = (np.tensordot(colors.astype(int), [3736, 19235, 9797], (1, 0)) >> 15)[:, np.newaxis]
    np.testing.assert_array_equal(images, colors[:NUM_READ])
    assert labels.tolist() == [7] * NUM_READ


@pytest.mark.parametrize(("phase", "is_shuffled"), [(TRAIN, True), (TEST, False)])
def test_data_shuffles_in_train_alone(folder: Path, phase: int, is_shuffled: bool) -> None:
    images, labels = read(f"{SOURCE} dtrain_param {{ shuffle: true }}", phase, num_batches=2)
    in_order = [3 * i for i in range(NUM_RECORDS)]
    assert sorted(labels.tolist()) == in_order
    assert (labels.tolist() != in_order) is is_shuffled
    np.testing.assert_array_equal(images, IMAGES[(labels / 3).astype(int)])


def test_data_finds_source_and_mean_file_beside_the_net_s_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    fields = f'{SOURCE} transform_param {{ mean_file: "mean.binaryproto" }}'
    images, _ = read(fields, net_path="../net.prototxt")
    np.testing.assert_array_equal(images, IMAGES[:NUM_READ] - 10.0)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("data_param { batch_size: 1 }", "^data_param.source must name a database, got none$"),
        ('data_param { source: "lmdb" }', "^data_param.batch_size must be at least 1, got none$"),
        (SOURCE.replace('"lmdb"', '"none"'), "^none: "),
        (SOURCE.replace("LMDB", "LEVELDB"), "LevelDB"),
        (
            f"{SOURCE} transform_param {{ crop_size: 6 }}",
            "crop_size must fit into the records of 2x5x5, got 6",
        ),
        (f'{SOURCE} transform_param {{ mean_file: "none" }}', "^none: "),
        (
            f"{SOURCE[:-1]} force_encoded_color: true }} transform_param {{ force_gray: true }}",
            "force_encoded_color and transform_param.force_gray must not be set both",
        ),
    ],
)
def test_data_that_cannot_be_read_is_refused(folder: Path, fields: str, problem: str) -> None:
    with pytest.raises((UserError, DataError), match=problem):
        read(fields)
