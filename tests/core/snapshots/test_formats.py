"""Which formats there are, and which one a file is in."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.formats import (
    BINARY,
    FORMATS,
    HDF5,
    SnapshotFormat,
    format_inside,
    format_named,
    format_of,
)
from dtrain.proto import caffe_pb2


def test_format_named_default_of_the_schema_is_there() -> None:
    default = caffe_pb2.SolverParameter().snapshot_format
    assert format_named(caffe_pb2.SolverParameter.SnapshotFormat.Name(default)) is BINARY


def test_format_named_has_every_name_of_the_schema() -> None:
    assert FORMATS.keys() == set(caffe_pb2.SolverParameter.SnapshotFormat.keys())
    assert format_named("HDF5") is HDF5


def test_format_named_unknown_lists_the_known() -> None:
    with pytest.raises(UserError, match="^snapshot_format must be one of BINARYPROTO, HDF5, got JSON$"):
        format_named("JSON")


@pytest.mark.parametrize("path", ["a/net.caffemodel", "net.solverstate", "weights", "a.h5/weights"])
def test_format_of_plain_names_is_binary(path: str) -> None:
    assert format_of(path) is BINARY


@pytest.mark.parametrize("path", ["a/net.caffemodel.h5", "net.solverstate.h5", "weights.h5"])
def test_format_of_names_that_end_in_h5_is_hdf5(path: str) -> None:
    assert format_of(path) is HDF5


@pytest.mark.parametrize("name", ["weights", "net.caffemodel", "net.caffemodel.h5"])
@pytest.mark.parametrize(
    ("content", "format"),
    [
        (b"\x89HDF\r\n\x1a\n....", HDF5),
        (bytes(2048) + b"\x89HDF\r\n\x1a\n....", HDF5),
        (bytes(100) + b"\x89HDF\r\n\x1a\n....", BINARY),
        (b"\n\x03net", BINARY),
    ],
)
def test_format_inside_goes_by_content(
    tmp_path: Path, name: str, content: bytes, format: SnapshotFormat
) -> None:
    (tmp_path / name).write_bytes(content)
    assert format_inside(tmp_path / name) is format


def test_format_inside_of_what_cannot_be_read_goes_by_name(tmp_path: Path) -> None:
    assert format_inside(tmp_path / "none.caffemodel") is BINARY
    assert format_inside(tmp_path / "none.caffemodel.h5") is HDF5
