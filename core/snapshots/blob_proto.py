"""Turn BlobProto messages into arrays and arrays into BlobProto messages, without a copy either way.

A caffemodel's weights and a solverstate's history are BlobProtos; both ends of the snapshot stage meet here.
Follows Blob::FromProto and Blob::ToProto of Caffe's blob.cpp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtrain.core.snapshots import wire

Array = NDArray[Any]
"""float32 or float64, of any shape."""

Part = bytes | Array
"""A piece of a file: literal bytes, or an array whose own memory is written."""

# Field numbers of caffe.proto.
_NUM, _CHANNELS, _HEIGHT, _WIDTH = 1, 2, 3, 4
_DATA, _DIFF, _SHAPE, _DOUBLE_DATA, _DOUBLE_DIFF = 5, 6, 7, 8, 9
_DIM = 1

_MAX_AXES, _MAX_DIM = 32, 2**31 - 1  # kMaxBlobAxes and INT_MAX of Caffe's blob
_LEGACY_DIMS = (_NUM, _CHANNELS, _HEIGHT, _WIDTH)
_FLOAT, _DOUBLE = np.dtype("<f4"), np.dtype("<f8")
_FIXED_TYPES = {_FLOAT: wire.FIXED32, _DOUBLE: wire.FIXED64}


class Blob(NamedTuple):
    """A BlobProto's values.

    Attributes:
        values: read-only, float32 (`data`) or float64 (`double_data`), a view of the file where it can be.
        legacy: whether the shape came from num, channels, height and width, as before Caffe had BlobShape.
    """

    values: Array
    legacy: bool


def read_blob(field: wire.Field) -> Blob:
    """Return the values of a BlobProto; its diff is left unread, as Caffe does when it loads weights.

    Raises:
        WireError: the bytes are no BlobProto, or its number of values is not the product of its shape.
    """
    shape: list[int] = []
    legacy: dict[int, int] = {}
    pieces: dict[np.dtype[Any], list[memoryview]] = {_FLOAT: [], _DOUBLE: []}
    for part in field.fields():
        if part.number == _SHAPE:
            shape += _read_shape(part)
        elif part.number in _LEGACY_DIMS:
            legacy[part.number] = part.signed()
        elif part.number == _DATA:
            pieces[_FLOAT].append(_floats(part, _FLOAT))
        elif part.number == _DOUBLE_DATA:
            pieces[_DOUBLE].append(_floats(part, _DOUBLE))
    if legacy:
        shape = [legacy.get(number, 0) for number in _LEGACY_DIMS]
    dtype = _DOUBLE if pieces[_DOUBLE] else _FLOAT
    values = np.frombuffer(_joined(pieces[dtype]), dtype)
    if not _is_shape(shape) or math.prod(shape) != values.size:
        raise wire.WireError(field.offset, f"a blob of shape {_shape_text(shape)} has {values.size} values")
    return Blob(values.reshape(shape), bool(legacy))


def write_blob(number: int, data: Array, diff: Array | None = None) -> list[Part]:
    """Write a BlobProto as field `number` of the message around it.

    float32 becomes `data` and `diff`, float64 `double_data` and `double_diff`; the shape becomes a BlobShape.

    Arguments:
        data: the values.
        diff: of data's shape and dtype, or None to leave it out.
    """
    if data.dtype not in (np.float32, np.float64):
        raise TypeError(f"a blob must be float32 or float64, got {data.dtype}")
    if diff is not None and (diff.shape, diff.dtype) != (data.shape, data.dtype):
        raise TypeError(
            f"a diff must be like its data, {data.dtype} {data.shape}, got {diff.dtype} {diff.shape}"
        )
    single = data.dtype == np.float32
    shape = wire.bytes_field(_SHAPE, wire.bytes_field(_DIM, b"".join(wire.varint(dim) for dim in data.shape)))
    values: list[Part] = [wire.bytes_header(_DATA if single else _DOUBLE_DATA, data.nbytes), data]
    if diff is not None:
        values += [wire.bytes_header(_DIFF if single else _DOUBLE_DIFF, diff.nbytes), diff]
    return [wire.bytes_header(number, len(shape) + num_bytes(values)), shape, *values]


def shape_fits(given: Sequence[int], shape: Sequence[int], is_legacy: bool) -> bool:
    """Tell whether a stored shape is that of a param: equal, or in its old form of four numbers, 1 in front."""
    if not is_legacy:
        return tuple(given) == tuple(shape)
    num_more = len(given) - len(shape)
    return num_more >= 0 and tuple(given) == (1,) * num_more + tuple(shape)


def num_bytes(parts: Sequence[Part]) -> int:
    """Count the bytes that `parts` take in a file."""
    return sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)


def buffer_of(part: Part) -> memoryview:
    """Return a part's bytes as they go into a file: little-endian, in C order; copied only if need be."""
    if isinstance(part, bytes):
        return memoryview(part)
    little_endian = part.astype(part.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little_endian).reshape(-1).view(np.uint8).data


def _read_shape(field: wire.Field) -> list[int]:
    return [dim for part in field.fields() if part.number == _DIM for dim in part.signed_items()]


def _floats(field: wire.Field, dtype: np.dtype[Any]) -> memoryview:
    """Return a field's floats as bytes: a packed list, or a single one from a writer that does not pack."""
    if field.wire_type not in (wire.BYTES, _FIXED_TYPES[dtype]):
        field.unexpected()
    if len(field.view) % dtype.itemsize:
        raise wire.WireError(field.offset, f"{len(field.view)} bytes are no list of {dtype.name}")
    return field.view


def _joined(pieces: list[memoryview]) -> memoryview | bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _is_shape(dims: Sequence[int]) -> bool:
    """Tell whether Caffe's Blob could have these dimensions."""
    return len(dims) <= _MAX_AXES and all(0 <= dim <= _MAX_DIM for dim in dims)


def _shape_text(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))})"
