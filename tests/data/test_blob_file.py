"""Tests of data/blob_file.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.data.blob_file import read_blob_file
from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2


def written(folder: Path, **fields: Any) -> str:
    path = folder / "blob"
    path.write_bytes(caffe_pb2.BlobProto(**fields).SerializeToString())
    return str(path)


def test_read_blob_file_returns_values_in_their_shape(tmp_path: Path) -> None:
    path = written(tmp_path, shape=caffe_pb2.BlobShape(dim=[2, 3]), data=range(6))
    values = read_blob_file(path, "source")
    np.testing.assert_array_equal(values, [[0, 1, 2], [3, 4, 5]])
    assert values.dtype == np.float32


def test_read_blob_file_of_the_old_form_has_4_axes(tmp_path: Path) -> None:
    path = written(tmp_path, num=1, channels=1, height=2, width=3, data=range(6))
    assert read_blob_file(path, "source").shape == (1, 1, 2, 3)


def test_read_blob_file_of_doubles_keeps_them(tmp_path: Path) -> None:
    path = written(tmp_path, shape=caffe_pb2.BlobShape(dim=[1]), double_data=[0.1])
    values = read_blob_file(path, "source")
    assert values.dtype == np.float64
    assert values[0] == 0.1


def test_read_blob_file_with_too_few_values_says_how_many(tmp_path: Path) -> None:
    path = written(tmp_path, shape=caffe_pb2.BlobShape(dim=[2, 3]), data=range(5))
    with pytest.raises(DataError) as caught:
        read_blob_file(path, "infogain_loss_param.source")
    assert str(caught.value) == (
        f"{path}: infogain_loss_param.source of shape (2, 3) must have as many values, got 5"
    )


@pytest.mark.parametrize("dims", [(-2, -3), (1,) * 32 + (6,)])
def test_read_blob_file_of_a_shape_that_cannot_be_says_so(tmp_path: Path, dims: tuple[int, ...]) -> None:
    path = written(tmp_path, shape=caffe_pb2.BlobShape(dim=dims), data=range(6))
    with pytest.raises(DataError) as caught:
        read_blob_file(path, "source")
    assert str(caught.value) == f"{path}: source must have at most 32 axes, none below 0, got shape {dims}"


def test_read_blob_file_that_is_missing_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_blob_file(f"{tmp_path}/H", "source")
    assert (
        str(caught.value) == f"{tmp_path}/H: source must be a readable file, got: No such file or directory"
    )


def test_read_blob_file_of_other_bytes_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a message")
    with pytest.raises(
        DataError, match=r"text: source must be a BlobProto \(.binaryproto\), got other bytes$"
    ):
        read_blob_file(f"{tmp_path}/text", "source")
