"""Which formats there are."""

from __future__ import annotations

import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.formats import BINARY, format_named, format_of
from dtrain.proto import caffe_pb2


def test_format_named_default_of_the_schema_is_there() -> None:
    default = caffe_pb2.SolverParameter().snapshot_format
    assert format_named(caffe_pb2.SolverParameter.SnapshotFormat.Name(default)) is BINARY


def test_format_named_unknown_lists_the_known() -> None:
    with pytest.raises(UserError, match="^snapshot_format must be one of BINARYPROTO, got HDF5$"):
        format_named("HDF5")


@pytest.mark.parametrize("path", ["a/net.caffemodel", "net.solverstate", "weights"])
def test_format_of_plain_names_is_binary(path: str) -> None:
    assert format_of(path) is BINARY
