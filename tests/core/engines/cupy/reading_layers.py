"""Databases, lists of images and the layers that read them, for the tests of what comes to a GPU ahead of time."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.layers import LAYERS, LayerContext
from dtrain.core.layers.parts.reading import ReadingLayer
from dtrain.core.random_streams import RandomStreams
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.data.sampler import Shard
from dtrain.data.synthetic_reader import Synthetic
from dtrain.proto import caffe_pb2

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST
NUM_RECORDS, BATCH_SIZE, NUM_BATCHES = 14, 4, 9
SHAPE = (3, 9, 12)
RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (NUM_RECORDS, *SHAPE), np.uint8)
MIRRORED = (
    "transform_param { mirror: true crop_size: 7 scale: 0.017 mean_value: 104 mean_value: 117 mean_value: 9 }"
)
PATIENCE_S = 30.0

HAS_CODECS = all(map(find_spec, ("PIL", "simplejpeg")))
needs_codecs = pytest.mark.skipif(not HAS_CODECS, reason="pillow and simplejpeg are not installed")

Read = list[list[np.ndarray]]


def write_data(folder: Path) -> None:
    """Write the databases raw, float, png, jpeg, gray, sizes and mixed, a mean image, and a list of images.

    Where images can't be compressed, raw, float and the mean alone.
    """
    write(folder / "raw", [raw(image, i) for i, image in enumerate(IMAGES)])
    write(folder / "float", [as_float(image / 3, i) for i, image in enumerate(IMAGES)])
    mean = RANDOM.uniform(0, 255, SHAPE).astype(np.float32)
    blob = caffe_pb2.BlobProto(num=1, channels=3, height=9, width=12, data=mean.ravel().tolist())
    (folder / "mean").write_bytes(blob.SerializeToString())
    if HAS_CODECS:
        _write_compressed(folder)


def _write_compressed(folder: Path) -> None:
    sizes = [image[:, : 7 + i % 3, : 8 + i % 5] for i, image in enumerate(IMAGES)]
    write(folder / "png", [encoded(image, i, "PNG") for i, image in enumerate(IMAGES)])
    write(folder / "jpeg", [encoded(image, i, "JPEG") for i, image in enumerate(IMAGES)])
    write(folder / "gray", [encoded(image[:1], i, "JPEG") for i, image in enumerate(IMAGES)])
    write(folder / "sizes", [encoded(image, i, "PNG") for i, image in enumerate(sizes)])
    kinds = (raw, lambda image, i: encoded(image, i, "PNG"), lambda image, i: as_float(image / 3, i))
    # the first batches are of bytes, stored in two ways; floats come later
    write(folder / "mixed", [kinds[i % 2 if i < 9 else i % 3](image, i) for i, image in enumerate(IMAGES)])
    (folder / "img").mkdir()
    for i, image in enumerate(sizes):
        picture(image).save(folder / f"img/{i}.png")
    (folder / "list").write_text("".join(f"img/{i}.png {i}\n" for i in range(NUM_RECORDS)))


def raw(image: np.ndarray, label: int) -> bytes:
    channels, height, width = image.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label, data=image.tobytes())
    return datum.SerializeToString()


def as_float(image: np.ndarray, label: int) -> bytes:
    channels, height, width = image.shape
    values = image.ravel().tolist()
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label, float_data=values)
    return datum.SerializeToString()


def picture(image: np.ndarray) -> Any:
    return pytest.importorskip("PIL.Image").fromarray(
        image[::-1].transpose(1, 2, 0) if len(image) == 3 else image[0]
    )


def encoded(image: np.ndarray, label: int, kind: str) -> bytes:
    file = io.BytesIO()
    picture(image).save(file, kind)
    return caffe_pb2.Datum(data=file.getvalue(), encoded=True, label=label).SerializeToString()


def write(path: Path, records: list[bytes]) -> None:
    write_lmdb(path, ((b"%08d" % i, record) for i, record in enumerate(records)))


def make_layer(
    text: str, engine: str = "cupy", phase: int = TRAIN, synthetic: Synthetic | None = None
) -> ReadingLayer:
    """Set up a reading layer from its text, on an engine."""
    param = text_format.Parse(f'name: "data" {text}', caffe_pb2.LayerParameter())
    context = LayerContext(phase, create_engine(engine), RandomStreams(1), Shard(0, 1), synthetic=synthetic)
    layer = LAYERS[param.type](param, context)
    assert isinstance(layer, ReadingLayer)
    top = [Blob(), Blob()]
    layer.setup([], top)
    layer.reshape([], top)
    return layer


def data(source: str, fields: str = "", batch_size: int = BATCH_SIZE) -> str:
    return (
        f'type: "Data" data_param {{ source: "{source}" backend: LMDB batch_size: {batch_size} prefetch: 2 }} '
        f"{fields}"
    )


def read(layer: ReadingLayer, num_batches: int = NUM_BATCHES) -> Read:
    """Return the values of the tops after each of some forwards, taken at once."""
    top = [Blob(), Blob()]
    batches = []
    for _ in range(num_batches):
        layer.forward([], top)
        batches.append([np.array(blob.data) for blob in top])
    return batches


def labels(batches: Read) -> list[int]:
    return [int(label) for _, values in batches for label in values]


def assert_same(found: Read, expected: Read) -> None:
    for tops, others in zip(found, expected, strict=True):
        for values, others_values in zip(tops, others, strict=True):
            np.testing.assert_array_equal(values, others_values, strict=True)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.001)
