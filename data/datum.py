"""Datum, the record of Caffe's databases, cut from the wire by hand and written to it.

The first thing done to a record that a source has read. Parsing by hand takes some microseconds and copies no
pixel; protobuf's own parser copies them all. Follows the message Datum of caffe.proto and protobuf's wire
format: fields in any order, the last of several wins, unknown fields are skipped (groups, which protobuf has
given up, are refused).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtrain.data.errors import DataError

# The wire's tag of each field: its number << 3 | its wire type.
CHANNELS_TAG, HEIGHT_TAG, WIDTH_TAG, LABEL_TAG, ENCODED_TAG = 0x08, 0x10, 0x18, 0x28, 0x38
DATA_TAG = 0x22
FLOAT_TAG = 0x35  # float_data, one value
PACKED_FLOAT_TAG = 0x32  # float_data, many values
_INT32_TAGS = (CHANNELS_TAG, HEIGHT_TAG, WIDTH_TAG, LABEL_TAG)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_FLOAT_FIELD_BYTES = 5
_MAX_VARINT_BITS = 64
_NO_FLOATS = np.empty(0, np.float32)


class Datum(NamedTuple):
    """One record: an image of channels x height x width and its label.

    data: its bytes, a view of the record, or a compressed image where `encoded`; float_data: its values where
    data is empty.
    """

    channels: int
    height: int
    width: int
    label: int
    data: memoryview
    float_data: NDArray[np.float32]
    encoded: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    def image(self) -> NDArray[Any]:
        """Return the values, uint8 or float32 (C, H, W), sharing the record's memory; not where encoded."""
        assert not self.encoded, "a compressed image has to be decoded first"
        values: NDArray[Any] = np.frombuffer(self.data, np.uint8) if len(self.data) else self.float_data
        return values.reshape(self.shape)


def parse_datum(record: bytes | memoryview) -> Datum:
    """Read one Datum from its bytes on the wire.

    Result: a Datum whose `data` is a view of `record`. Unless it is encoded, the number of its values is
    channels·height·width.
    Raises DataError, with the place in the record, when the bytes are no Datum or the sizes disagree.
    """
    view = memoryview(record)
    try:
        datum = _read_fields(view)
    except IndexError:
        raise DataError(f"byte {len(view)}: record must not end within a field; it is truncated") from None
    if not datum.encoded:
        _check_sizes(datum)
    return datum


def encode_datum(image: NDArray[np.uint8], label: int) -> bytes:
    """Return the bytes on the wire of an image, uint8 (C, H, W), with its label, an int32."""
    assert image.dtype == np.uint8, f"image must be of uint8, got {image.dtype}"
    channels, height, width = image.shape
    tail = bytes([LABEL_TAG]) + _encode_varint(label & 0xFFFFFFFFFFFFFFFF)
    return encode_header(channels, height, width) + image.tobytes() + tail


def encode_header(channels: int, height: int, width: int) -> bytes:
    """Return what stands before the pixels of a Datum whose fields are in the order of their numbers."""
    fields = (
        (CHANNELS_TAG, channels),
        (HEIGHT_TAG, height),
        (WIDTH_TAG, width),
        (DATA_TAG, channels * height * width),
    )
    return b"".join(bytes([tag]) + _encode_varint(value) for tag, value in fields)


def _read_fields(view: memoryview) -> Datum:
    numbers: dict[int, int] = {}
    data = view[:0]
    floats: list[NDArray[np.float32]] = []
    offset = 0
    while offset < len(view):
        start = offset
        tag, offset = _read_varint(view, start)
        wire_type = tag & 7
        if wire_type == _VARINT:
            numbers[tag], offset = _read_varint(view, offset)
        elif view[start] == FLOAT_TAG and len(view) - start >= _FLOAT_FIELD_BYTES:
            values, offset = _read_float_run(view, start)
            floats.append(values)
        else:
            first, offset = _bound_field(view, start, offset, wire_type)
            if tag == DATA_TAG:
                data = view[first:offset]
            elif tag in (PACKED_FLOAT_TAG, FLOAT_TAG):
                floats.append(_unpack_floats(view, first, offset))
        if tag < 8:
            raise DataError(f"byte {start}: field number must be at least 1, got 0; the record is no Datum")
    channels, height, width, label = (_to_int32(numbers.get(tag, 0)) for tag in _INT32_TAGS)
    float_data = np.concatenate(floats) if floats else _NO_FLOATS
    return Datum(channels, height, width, label, data, float_data, bool(numbers.get(ENCODED_TAG, 0)))


def _bound_field(view: memoryview, start: int, offset: int, wire_type: int) -> tuple[int, int]:
    """Return where the value of a field of fixed or given length begins and ends."""
    if wire_type == _BYTES:
        length, offset = _read_varint(view, offset)
    elif wire_type in _FIXED_SIZES:
        length = _FIXED_SIZES[wire_type]
    else:
        raise DataError(
            f"byte {start}: wire type must be 0, 1, 2 or 5, got {wire_type}; the record is no Datum"
        )
    if length > len(view) - offset:
        left = len(view) - offset
        raise DataError(f"byte {start}: field must have at most the {left} bytes that are left, got {length}")
    return offset, offset + length


def _read_varint(view: memoryview, offset: int) -> tuple[int, int]:
    value = view[offset]
    offset += 1
    if value < 0x80:
        return value, offset
    value &= 0x7F
    for shift in range(7, _MAX_VARINT_BITS, 7):
        byte = view[offset]
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
    raise DataError(f"byte {offset - 10}: varint must have at most 10 bytes; the record is no Datum")


def _read_float_run(view: memoryview, start: int) -> tuple[NDArray[np.float32], int]:
    """Read the unpacked floats, each a tag and four bytes, that follow one another from `start` on."""
    num_fitting = (len(view) - start) // _FLOAT_FIELD_BYTES
    fields = np.frombuffer(view, np.uint8, _FLOAT_FIELD_BYTES * num_fitting, start).reshape(num_fitting, -1)
    others = np.flatnonzero(fields[:, 0] != FLOAT_TAG)
    num_floats = int(others[0]) if len(others) else num_fitting
    values = fields[:num_floats, 1:].copy().view("<f4").ravel()
    return values.astype(np.float32, copy=False), start + _FLOAT_FIELD_BYTES * num_floats


def _unpack_floats(view: memoryview, first: int, end: int) -> NDArray[np.float32]:
    if (end - first) % 4:
        raise DataError(f"byte {first}: packed float_data must have a multiple of 4 bytes, got {end - first}")
    return np.frombuffer(view[first:end], "<f4").astype(np.float32, copy=False)


def _check_sizes(datum: Datum) -> None:
    if min(datum.shape) < 1:
        size = "x".join(map(str, datum.shape))
        raise DataError(f"channels, height and width must be at least 1, got {size}; the record is no Datum")
    num_values = datum.channels * datum.height * datum.width
    num_found = len(datum.data) or len(datum.float_data)
    if num_found != num_values:
        size = "x".join(map(str, datum.shape))
        raise DataError(f"data must hold {size} = {num_values} values, got {num_found}")


def _to_int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
