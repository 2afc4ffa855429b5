"""The wire format, against protobuf's published examples and against the protobuf library."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.core.snapshots import wire
from dtrain.proto import caffe_pb2


def walk(content: bytes) -> list[wire.Field]:
    return list(wire.walk(memoryview(content)))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (150, "9601"),
        (2**32, "8080808010"),
        (-1, "ffffffffffffffffff01"),
    ],
)
def test_varint_value_gives_published_bytes(value: int, encoded: str) -> None:
    assert wire.varint(value).hex() == encoded


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1))
def test_integer_field_any_int32_is_what_protobuf_writes(first: int, second: int) -> None:
    state = caffe_pb2.SolverState(iter=first, current_step=second)
    written = wire.integer_field(1, first) + wire.integer_field(4, second)
    assert written == state.SerializeToString()
    assert [(field.number, field.signed()) for field in walk(written)] == [(1, first), (4, second)]


def test_bytes_field_text_is_what_protobuf_writes() -> None:
    net = caffe_pb2.NetParameter(name="größe" * 40)
    written = wire.bytes_field(1, net.name.encode())
    assert written == net.SerializeToString()
    assert [field.text() for field in walk(written)] == [net.name]


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_signed_items_packed_and_not_give_the_same(dims: list[int]) -> None:
    packed = caffe_pb2.BlobShape(dim=dims).SerializeToString()
    unpacked = b"".join(wire.integer_field(1, dim) for dim in dims)
    assert [item for field in walk(packed) for item in field.signed_items()] == dims
    assert [item for field in walk(unpacked) for item in field.signed_items()] == dims


def test_walk_nested_message_reports_offsets_from_the_start_of_the_file() -> None:
    inner = wire.integer_field(1, 5)
    (outer,) = walk(wire.bytes_field(3, b"\x10\x01" + inner))
    assert [field.offset for field in outer.fields()] == [3, 5]


def test_walk_fixed_values_are_views_of_their_bytes() -> None:
    fields = walk(b"\x0d1234" + b"\x1112345678")
    assert [(field.wire_type, bytes(field.view)) for field in fields] == [
        (wire.FIXED32, b"1234"),
        (wire.FIXED64, b"12345678"),
    ]


@pytest.mark.parametrize(
    ("content", "offset", "problem"),
    [
        ("80", 0, "a number breaks off"),
        ("08", 1, "a number breaks off"),
        ("08" + "80" * 10 + "01", 1, "a number is longer than 10 bytes"),
        ("0801" + "0a05aabb", 2, "field 1 needs 5 bytes and 2 are left"),
        ("0d010203", 0, "field 1 needs 4 bytes and 3 are left"),
        ("00", 0, "0 is no field's tag"),
        ("0b", 0, "11 is no field's tag"),
        ("0f", 0, "15 is no field's tag"),
    ],
)
def test_walk_malformed_bytes_raises_with_offset(content: str, offset: int, problem: str) -> None:
    with pytest.raises(wire.WireError) as error:
        walk(bytes.fromhex(content))
    assert (error.value.offset, error.value.problem) == (offset, problem)
    assert str(error.value) == f"{problem} at byte {offset}"


@given(st.binary(max_size=64))
def test_walk_any_bytes_raises_nothing_but_wire_error(content: bytes) -> None:
    try:
        fields = walk(content)
    except wire.WireError:
        return
    assert sum(len(field.view) for field in fields) <= len(content)


def test_field_wrong_wire_type_raises() -> None:
    (number,) = walk(wire.integer_field(2, 7))
    with pytest.raises(wire.WireError, match=r"field 2 has an unexpected wire type \(a varint\) at byte 1"):
        number.text()
    (text,) = walk(wire.bytes_field(2, b"x"))
    with pytest.raises(wire.WireError, match=r"unexpected wire type \(length-delimited\)"):
        text.signed()


def test_text_not_utf8_raises() -> None:
    (field,) = walk(wire.bytes_field(1, b"\xff"))
    with pytest.raises(wire.WireError, match="field 1 is not UTF-8 text at byte 2"):
        field.text()
