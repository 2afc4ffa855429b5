"""BlobProto in and out, against the protobuf library."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.core.snapshots import wire
from dtrain.core.snapshots.blob_proto import Blob, buffer_of, num_bytes, read_blob, write_blob
from dtrain.proto import caffe_pb2


def read(content: bytes) -> Blob:
    (field,) = wire.walk(memoryview(wire.bytes_field(1, content)))
    return read_blob(field)


def written(data: np.ndarray, diff: np.ndarray | None = None) -> caffe_pb2.BlobProto:
    parts = write_blob(1, data, diff)
    content = b"".join(buffer_of(part) for part in parts)
    assert len(content) == num_bytes(parts)
    return caffe_pb2.BlobProtoVector.FromString(content).blobs[0]


@given(st.lists(st.integers(0, 3), max_size=5), st.sampled_from([np.float32, np.float64]))
def test_blob_any_shape_passes_through_protobuf_unchanged(shape: list[int], dtype: type) -> None:
    data: np.ndarray = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    message = written(data, -data)
    values, diffs = (
        (message.data, message.diff) if dtype == np.float32 else (message.double_data, message.double_diff)
    )
    assert list(message.shape.dim) == shape
    assert np.array_equal(np.array(values, dtype).reshape(shape), data)
    assert np.array_equal(np.array(diffs, dtype).reshape(shape), -data)
    back = read(message.SerializeToString())
    # A BlobProto without values says nothing of their type; Caffe's own is float.
    assert back.values.dtype == (dtype if data.size else np.float32)
    assert np.array_equal(back.values, data)
    assert not back.legacy


@pytest.mark.parametrize("window", [np.s_[:, ::2], np.s_[::-1], np.s_[1:, 1:3]])
def test_write_blob_array_with_strides_keeps_its_values(window: tuple[slice, ...]) -> None:
    data = np.arange(12, dtype=np.float32).reshape(3, 4)[window]
    message = written(data)
    assert np.array_equal(np.array(message.data).reshape(tuple(message.shape.dim)), data)


def test_write_blob_without_diff_leaves_it_out() -> None:
    assert not written(np.ones(3, np.float32)).diff


def test_buffer_of_big_endian_array_is_little_endian() -> None:
    assert bytes(buffer_of(np.array([1.0, -2.0], ">f4"))) == struct.pack("<2f", 1.0, -2.0)


def test_buffer_of_plain_array_is_its_own_memory() -> None:
    data = np.zeros(4, np.float32)
    buffer_of(data)[:4] = struct.pack("<f", 1.0)
    assert data[0] == 1.0


@pytest.mark.parametrize(
    ("data", "diff"),
    [
        (np.zeros(2, np.int32), None),
        (np.zeros(2, np.float32), np.zeros(3, np.float32)),
        (np.zeros(2, np.float32), np.zeros(2, np.float64)),
    ],
)
def test_write_blob_wrong_array_raises_type_error(data: np.ndarray, diff: np.ndarray | None) -> None:
    with pytest.raises(TypeError):
        write_blob(1, data, diff)


def test_read_blob_unpacked_floats_are_read_as_protobuf_reads_them() -> None:
    shape = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[3])).SerializeToString()
    content = shape + b"".join(b"\x2d" + struct.pack("<f", value) for value in (1.5, -2.0, 3e38))
    assert np.array_equal(
        read(content).values, np.array(caffe_pb2.BlobProto.FromString(content).data, np.float32)
    )


def test_read_blob_packed_list_in_two_pieces_is_joined() -> None:
    content = (
        caffe_pb2.BlobProto(data=[1, 2]).SerializeToString()
        + caffe_pb2.BlobProto(data=[3], shape=caffe_pb2.BlobShape(dim=[3])).SerializeToString()
    )
    assert read(content).values.tolist() == [1, 2, 3]


def test_read_blob_legacy_dims_give_four_axes() -> None:
    blob = read(caffe_pb2.BlobProto(num=1, channels=1, height=2, width=3, data=range(6)).SerializeToString())
    assert blob.legacy
    assert blob.values.tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


def test_read_blob_packed_values_are_not_copied() -> None:
    values = read(
        caffe_pb2.BlobProto(data=[7.0], shape=caffe_pb2.BlobShape(dim=[1])).SerializeToString()
    ).values
    assert not values.flags.owndata
    assert not values.flags.writeable


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"data": [1, 2], "shape": {"dim": [3]}}, r"shape \(3\) has 2 values"),
        ({"data": [1, 2]}, r"shape \(\) has 2 values"),
        ({"shape": {"dim": [2]}}, r"shape \(2\) has 0 values"),
        ({"data": [1], "shape": {"dim": [-1, -1]}}, r"shape \(-1, -1\) has 1 values"),
        ({"data": [1], "shape": {"dim": [1] * 33}}, r"has 1 values"),
        ({"shape": {"dim": [0, 2**40]}}, r"shape \(0, 1099511627776\) has 0 values"),
        ({"num": 2, "data": [1]}, r"shape \(2, 0, 0, 0\) has 1 values"),
    ],
)
def test_read_blob_shape_that_does_not_fit_raises(message: dict[str, Any], problem: str) -> None:
    with pytest.raises(wire.WireError, match=problem):
        read(caffe_pb2.BlobProto(**message).SerializeToString())


def test_read_blob_list_of_broken_floats_raises() -> None:
    with pytest.raises(wire.WireError, match="5 bytes are no list of float32 at byte 4"):
        read(wire.bytes_field(5, b"12345"))


def test_read_blob_float_of_another_width_raises() -> None:
    with pytest.raises(wire.WireError, match=r"field 5 has an unexpected wire type \(eight bytes\)"):
        read(b"\x29" + bytes(8))
