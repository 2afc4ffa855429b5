"""Small databases for the tests of data/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import plyvel
import pytest
from numpy.typing import NDArray

from dtrain.data.lmdb_writer import write_lmdb
from dtrain.proto import caffe_pb2

MakeLmdb = Callable[[Sequence[bytes]], str]


@pytest.fixture
def make_lmdb(tmp_path: Path) -> MakeLmdb:
    """Return a function that writes values under the keys 00000000, 00000001 … and returns the folder."""

    def make(values: Sequence[bytes]) -> str:
        path = tmp_path / f"db{len(list(tmp_path.iterdir()))}"
        write_lmdb(path, ((b"%08d" % index, value) for index, value in enumerate(values)))
        return str(path)

    return make


@pytest.fixture
def make_leveldb(tmp_path: Path) -> MakeLmdb:
    """Return a function that writes values under the keys 00000000, 00000001 … and returns the folder."""

    def make(values: Sequence[bytes]) -> str:
        path = str(tmp_path / f"leveldb{len(list(tmp_path.iterdir()))}")
        with closing(plyvel.DB(path, create_if_missing=True, error_if_exists=True)) as database:
            for index, value in enumerate(values):
                database.put(b"%08d" % index, value)
        return path

    return make


@pytest.fixture
def make_datum() -> Callable[..., bytes]:
    """Return a function that lets protobuf write an image of (C, H, W), uint8 or float32, with its label."""

    def make(image: NDArray[np.generic], label: int = 0) -> bytes:
        channels, height, width = image.shape
        datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
        if image.dtype == np.uint8:
            datum.data = image.tobytes()
        else:
            datum.float_data.extend(image.ravel().tolist())
        return datum.SerializeToString()

    return make


@pytest.fixture
def images() -> NDArray[np.uint8]:
    """10 images of 2x3x4: pixel k of image i is 24·i + k."""
    return np.arange(240, dtype=np.uint8).reshape(10, 2, 3, 4)
