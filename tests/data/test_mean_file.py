"""Tests of data/mean_file.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.data.errors import DataError
from dtrain.data.mean_file import read_mean_file, write_mean_file
from dtrain.proto import caffe_pb2

VALUES = [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]


def write_blob(path: Path, **fields: object) -> str:
    path.write_bytes(caffe_pb2.BlobProto(**fields).SerializeToString())  # type: ignore[arg-type]
    return str(path)


@pytest.mark.parametrize(
    "fields",
    [
        {"num": 1, "channels": 2, "height": 1, "width": 3, "data": VALUES},
        {"shape": caffe_pb2.BlobShape(dim=[1, 2, 1, 3]), "data": VALUES},
        {"shape": caffe_pb2.BlobShape(dim=[2, 1, 3]), "data": VALUES},
        {"shape": caffe_pb2.BlobShape(dim=[2, 1, 3]), "double_data": VALUES},
    ],
)
def test_read_mean_file_of_each_form_returns_the_image(tmp_path: Path, fields: dict[str, object]) -> None:
    mean = read_mean_file(write_blob(tmp_path / "mean", **fields))
    assert mean.dtype == "float32"
    assert mean.tolist() == [[[0.5, 1.5, 2.5]], [[3.5, 4.5, 5.5]]]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "mean image must be channels x height x width, got no shape"),
        ({"num": 0, "data": []}, "mean image must be channels x height x width, got 0x0x0x0"),
        ({"num": 2, "channels": 1, "height": 1, "width": 3, "data": VALUES}, "got 2x1x1x3"),
        ({"shape": caffe_pb2.BlobShape(dim=[6]), "data": VALUES}, "got 6"),
        ({"shape": caffe_pb2.BlobShape(dim=[2, -1, -3]), "data": VALUES}, "got 2x-1x-3"),
        (
            {"shape": caffe_pb2.BlobShape(dim=[2, 2, 3]), "data": VALUES},
            "2x2x3 must have as many values, got 6",
        ),
    ],
)
def test_read_mean_file_of_a_wrong_shape_says_so(
    tmp_path: Path, fields: dict[str, object], complaint: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_mean_file(write_blob(tmp_path / "mean", **fields))
    assert caught.value.problem.startswith(f"{tmp_path / 'mean'}: ")
    assert complaint in caught.value.problem


def test_read_mean_file_of_both_forms_goes_by_the_old_one_as_caffe_does(tmp_path: Path) -> None:
    shape = caffe_pb2.BlobShape(dim=[3, 1, 2])
    path = write_blob(tmp_path / "mean", num=1, channels=2, height=1, width=3, shape=shape, data=VALUES)
    assert read_mean_file(path).shape == (2, 1, 3)


def test_write_mean_file_is_the_blob_that_caffe_s_tool_writes(tmp_path: Path) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_text("old")
    write_mean_file(str(path), np.array(VALUES, np.float32).reshape(2, 1, 3))
    expected = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=3, data=VALUES)
    assert caffe_pb2.BlobProto.FromString(path.read_bytes()) == expected
    assert [file.name for file in tmp_path.iterdir()] == ["mean.binaryproto"]
    assert read_mean_file(str(path)).tolist() == [[[0.5, 1.5, 2.5]], [[3.5, 4.5, 5.5]]]


def test_write_mean_file_that_is_refused_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write_mean_file(str(tmp_path), np.zeros((1, 2, 2), np.float32))
    assert caught.value.problem == f"{tmp_path}: mean file must be writable, got: Is a directory"
    assert list(tmp_path.parent.glob("*.partial")) == []


@pytest.mark.parametrize(
    ("field", "value", "got"),
    [("data", "nan", "nan"), ("data", "-inf", "-inf"), ("double_data", "1e300", "inf")],
)
def test_read_mean_file_with_a_value_that_is_not_finite_says_so(
    tmp_path: Path, field: str, value: str, got: str
) -> None:
    shape = caffe_pb2.BlobShape(dim=[1, 1, 2])
    path = write_blob(tmp_path / "mean", shape=shape, **{field: [0.5, float(value)]})
    with pytest.raises(DataError) as caught:
        read_mean_file(path)
    assert caught.value.problem == f"{path}: mean image must hold finite numbers, got {got}"


def test_read_mean_file_of_a_name_that_can_be_no_files_says_so() -> None:
    with pytest.raises(DataError, match="mean_file must be a file's name, got one with a NUL character$"):
        read_mean_file("a\0b")


def test_read_mean_file_of_other_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a blob")
    for name, complaint in (
        ("text", "mean_file must be a BlobProto (.binaryproto), got other bytes"),
        ("no", "mean_file must be a readable file, got: No such file or directory"),
        (".", "mean_file must be a readable file, got: Is a directory"),
    ):
        with pytest.raises(DataError) as caught:
            read_mean_file(str(tmp_path / name))
        assert complaint in caught.value.problem
