"""Tests of data/datum.py, against protobuf's own parser."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dtrain.data.datum import encode_datum, parse_datum
from dtrain.data.errors import DataError
from dtrain.proto import caffe_pb2

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
FLOATS = st.floats(width=32, allow_nan=False)


def varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value % 128 + 128])
        value //= 128
    return encoded + bytes([value])


def check_like_protobuf(record: bytes) -> None:
    expected = caffe_pb2.Datum.FromString(record)
    datum = parse_datum(record)
    assert datum.shape == (expected.channels, expected.height, expected.width)
    assert datum.label == expected.label
    assert bytes(datum.data) == expected.data
    assert datum.float_data.tolist() == list(expected.float_data)
    assert datum.encoded == expected.encoded


@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), INT32, st.booleans(), st.data())
def test_parse_datum_of_any_image_agrees_with_protobuf(
    channels: int, height: int, width: int, label: int, is_float: bool, data: st.DataObject
) -> None:
    size = channels * height * width
    message = caffe_pb2.Datum(channels=channels, height=height, width=width, label=label)
    if is_float:
        message.float_data.extend(data.draw(st.lists(FLOATS, min_size=size, max_size=size)))
    else:
        message.data = data.draw(st.binary(min_size=size, max_size=size))
    check_like_protobuf(message.SerializeToString())


def shape_fields(*shape: int) -> list[bytes]:
    return [bytes([tag]) + varint(value) for tag, value in zip(b"\x08\x10\x18", shape, strict=True)]


FIELDS_OF_1X1X2 = {
    "data": [b"\x22\x02ab"],
    "data_twice": [b"\x22\x01z", b"\x22\x02ab"],
    "empty_data_and_floats": [b"\x22\x00", b"\x35" + struct.pack("<f", 1), b"\x35" + struct.pack("<f", -2)],
    "packed_floats": [b"\x32\x08" + struct.pack("<2f", 1.5, -2)],
    "no_packed_floats": [b"\x32\x00", b"\x22\x02ab"],
    "packed_and_single_floats": [b"\x32\x04" + struct.pack("<f", 1), b"\x35" + struct.pack("<f", 2)],
    "floats_with_a_field_between": [
        b"\x35" + struct.pack("<f", 1),
        b"\x28\x05",
        b"\x35" + struct.pack("<f", 2),
    ],
    "floats_with_long_tags": [b"\xb5\x00" + struct.pack("<f", 1), b"\xb5\x00" + struct.pack("<f", 2)],
    "negative_label": [b"\x22\x02ab", b"\x28" + varint((1 << 64) - 3)],
    "label_twice": [b"\x28\x07", b"\x22\x02ab", b"\x28\x09"],
    "unknown_fields": [
        *(b"\x40\x96\x01", b"\x49" + bytes(8), b"\x52\x03xyz", b"\x5d" + bytes(4), b"\x80\x7d\x01"),
        b"\x22\x02ab",
    ],
    "known_field_of_another_type": [b"\x2a\x01q", b"\x20\x05", b"\x22\x02ab"],
    "encoded": [b"\x22\x05image", b"\x38\x01"],
    "encoded_false": [b"\x22\x02ab", b"\x38\x00"],
}


@pytest.mark.parametrize("name", FIELDS_OF_1X1X2)
def test_parse_datum_of_hand_made_fields_agrees_with_protobuf(name: str) -> None:
    fields = shape_fields(1, 1, 2) + FIELDS_OF_1X1X2[name]
    check_like_protobuf(b"".join(fields))


def test_parse_datum_with_fields_in_reverse_agrees_with_protobuf() -> None:
    check_like_protobuf(b"".join(reversed([*shape_fields(1, 1, 2), b"\x22\x02ab", b"\x28\x09"])))


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (b"", "channels, height and width must be at least 1, got 0x0x0"),
        (b"".join(shape_fields(1, 1, 2)), "data must hold 1x1x2 = 2 values, got 0"),
        (b"".join([*shape_fields(1, 2, 2), b"\x22\x03abc"]), "data must hold 1x2x2 = 4 values, got 3"),
        (b"".join([*shape_fields(1, 1, 1), b"\x35" + bytes(8)]), "byte 11: field number must be at least 1"),
        (b"\x22\x7fab", "byte 0: field must have at most the 2 bytes that are left, got 127"),
        (b"\x08\x01\x35ab", "byte 2: field must have at most the 2 bytes that are left, got 4"),
        (b"\x08", "byte 1: record must not end within a field"),
        (b"\x08\x80", "byte 2: record must not end within a field"),
        (b"\x08" + b"\x80" * 10 + b"\x01", "byte 1: varint must have at most 10 bytes"),
        (b"\x0b\x01\x0c", "byte 0: wire type must be 0, 1, 2 or 5, got 3"),
        (b"\x32\x03abc", "byte 2: packed float_data must have a multiple of 4 bytes, got 3"),
        (b"\x00\x00", "byte 0: field number must be at least 1, got 0"),
        (b"SQLite format 3", "byte 0: wire type must be"),
    ],
)
def test_parse_datum_of_wrong_bytes_says_what_and_where(record: bytes, complaint: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_datum(record)
    assert complaint in caught.value.problem


VALID = caffe_pb2.Datum(channels=2, height=2, width=3, label=300, data=bytes(range(12))).SerializeToString()
VALID_FLOATS = caffe_pb2.Datum(
    channels=1, height=1, width=3, label=-1, float_data=[1, 2, 3]
).SerializeToString()


@pytest.mark.parametrize("record", [VALID, VALID_FLOATS])
def test_parse_datum_of_every_truncation_raises_or_lacks_its_end(record: bytes) -> None:
    full = parse_datum(record)
    for size in range(len(record)):
        try:
            cut = parse_datum(record[:size])
        except DataError:
            continue
        # Cut between two fields, after all the pixels: protobuf itself can't tell.
        assert (cut.shape, cut.label) == (full.shape, 0)


@given(st.sampled_from([VALID, VALID_FLOATS]), st.lists(st.integers(0, 8 * 22 - 1), min_size=1, max_size=6))
def test_parse_datum_of_flipped_bits_raises_data_error_only(record: bytes, bits: list[int]) -> None:
    flipped = bytearray(record)
    for bit in bits:
        flipped[bit // 8 % len(record)] ^= 1 << bit % 8
    check_sound(bytes(flipped))


@given(st.binary(max_size=60))
def test_parse_datum_of_any_bytes_raises_data_error_only(record: bytes) -> None:
    check_sound(record)


def check_sound(record: bytes) -> None:
    try:
        datum = parse_datum(record)
    except DataError:
        return
    assert datum.encoded or datum.image().shape == datum.shape


def test_parse_datum_of_a_record_shares_its_memory() -> None:
    record = bytearray(VALID)
    datum = parse_datum(memoryview(record))
    record[record.index(bytes(range(12)))] = 99
    assert datum.image()[0, 0, 0] == 99


@pytest.mark.parametrize("label", [0, 9, 127, 128, 999, -1, (1 << 31) - 1, -(1 << 31)])
def test_encode_datum_of_an_image_is_what_protobuf_writes(
    label: int, make_datum: Callable[..., bytes], images: NDArray[np.uint8]
) -> None:
    assert encode_datum(images[3], label) == make_datum(images[3], label)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 256, 256), (1, 300, 2)])
def test_encode_datum_of_any_size_is_what_protobuf_writes(
    shape: tuple[int, int, int], make_datum: Callable[..., bytes]
) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    assert encode_datum(image, 1) == make_datum(image, 1)


def test_encode_datum_of_a_turned_image_writes_it_row_by_row() -> None:
    image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    turned = parse_datum(encode_datum(image.transpose(0, 2, 1), 0))
    assert turned.image().tolist() == [[[0, 3], [1, 4], [2, 5]]]


def test_encode_datum_of_floats_asserts() -> None:
    with pytest.raises(AssertionError, match="uint8"):
        encode_datum(np.zeros((1, 1, 1)), 0)  # type: ignore[arg-type]
