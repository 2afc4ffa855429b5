"""Tests of data/mean_file.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.data.errors import DataError
from dtrain.data.mean_file import read_mean_file
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
        ({}, "mean image must be channels x height x width, got 0x0x0x0"),
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


def test_read_mean_file_of_other_files_says_so(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a blob")
    for name, complaint in (
        ("text", "mean_file must be a BlobProto (.binaryproto), got other bytes"),
        ("no", "mean_file must be readable, got: No such file or directory"),
        (".", "mean_file must be readable, got: Is a directory"),
    ):
        with pytest.raises(DataError) as caught:
            read_mean_file(str(tmp_path / name))
        assert complaint in caught.value.problem
