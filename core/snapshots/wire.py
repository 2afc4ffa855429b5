"""Walk and write protobuf's wire format by hand, so that a model's arrays are never copied on their way.

Stands below the snapshot stage of the flow prototxt → graph → net → solver → communicator → snapshot:
`blob_proto`, `caffemodel` and `solverstate` are built on it. The format is protobuf's public "Encoding"
guide: a message is a sequence of fields, each a varint tag (number · 8 + wire type) followed by its value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, NoReturn

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_WIRE_NAMES = {VARINT: "a varint", FIXED64: "eight bytes", BYTES: "length-delimited", FIXED32: "four bytes"}
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10
_MAX_FIELD_NUMBER = 2**29 - 1


class WireError(Exception):
    """Say what makes bytes no protobuf message, and at which offset of the file; becomes a UserError."""

    def __init__(self, offset: int, problem: str) -> None:
        super().__init__(f"{problem} at byte {offset}")
        self.offset = offset
        self.problem = problem


class Field(NamedTuple):
    """One field of a message, its value still in place.

    Attributes:
        number: the field's number in its message.
        wire_type: VARINT, FIXED64, BYTES or FIXED32.
        integer: the value of a varint, unsigned 64 bit; 0 for the other wire types.
        view: the bytes of the value; empty for a varint.
        offset: where the value starts, in bytes from the start of the file.
    """

    number: int
    wire_type: int
    integer: int
    view: memoryview
    offset: int

    def fields(self) -> Iterator[Field]:
        """Walk the message that this field holds."""
        return walk(self.message(), self.offset)

    def message(self) -> memoryview:
        """Return the bytes of a length-delimited value; raises WireError for another wire type."""
        self._require(BYTES)
        return self.view

    def signed(self) -> int:
        """Return a varint as protobuf's int32 or int64, which are stored as two's complement in 64 bits."""
        self._require(VARINT)
        return self.integer - 2**64 if self.integer >= 2**63 else self.integer

    def text(self) -> str:
        """Return a string; raises WireError when it is not UTF-8."""
        try:
            return str(self.message(), "utf-8")
        except UnicodeDecodeError:
            raise WireError(self.offset, f"field {self.number} is not UTF-8 text") from None

    def signed_items(self) -> list[int]:
        """Return the items of a repeated int32 or int64, which is packed into one value or not."""
        if self.wire_type == VARINT:
            return [self.signed()]
        items: list[int] = []
        position = 0
        while position < len(self.message()):
            item, position = _read_varint(self.view, position, self.offset)
            items.append(item - 2**64 if item >= 2**63 else item)
        return items

    def unexpected(self) -> NoReturn:
        """Raise the WireError of a field whose wire type is not the one that its number has."""
        raise WireError(
            self.offset, f"field {self.number} has an unexpected wire type ({_WIRE_NAMES[self.wire_type]})"
        )

    def _require(self, wire_type: int) -> None:
        if self.wire_type != wire_type:
            self.unexpected()


def walk(view: memoryview, base: int = 0) -> Iterator[Field]:
    """Yield the fields of a message in their order; unknown ones too, for the caller to pass over.

    Arguments:
        view: the message, as bytes.
        base: the message's own offset in the file, for error messages.
    Raises:
        WireError: at the first byte that no protobuf message has there; groups, which Caffe's schema lacks,
            included.
    """
    position = 0
    while position < len(view):
        start = position
        tag, position = _read_varint(view, position, base)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number <= _MAX_FIELD_NUMBER or wire_type not in _WIRE_NAMES:
            raise WireError(base + start, f"{tag} is no field's tag")
        integer, length = 0, _FIXED_SIZES.get(wire_type, 0)
        value_start = position
        if wire_type == VARINT:
            integer, position = _read_varint(view, position, base)
        elif wire_type == BYTES:
            length, value_start = _read_varint(view, position, base)
        end = value_start + length
        if end > len(view):
            raise WireError(
                base + start,
                f"field {number} needs {length} bytes and {max(0, len(view) - value_start)} are left",
            )
        yield Field(number, wire_type, integer, view[value_start:end], base + value_start)
        position = max(position, end)


def _read_varint(view: memoryview, position: int, base: int) -> tuple[int, int]:
    """Return the varint at `position` and the position after it."""
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if position + index >= len(view):
            raise WireError(base + position, "a number breaks off")
        byte = view[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + index + 1
    raise WireError(base + position, "a number is longer than 10 bytes")


def varint(value: int) -> bytes:
    """Write an integer as a varint; a negative one in ten bytes, as protobuf's int32 and int64.

    Arguments:
        value: −2**63 to 2**64 − 1.
    """
    remaining = value & 0xFFFFFFFFFFFFFFFF
    encoded = bytearray()
    while remaining >= 0x80:
        encoded.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    encoded.append(remaining)
    return bytes(encoded)


def integer_field(number: int, value: int) -> bytes:
    """Write an int32, int64, bool or enum field."""
    return varint(number << 3 | VARINT) + varint(value)


def bytes_header(number: int, num_bytes: int) -> bytes:
    """Write the tag and length of a length-delimited field; its `num_bytes` bytes must follow."""
    return varint(number << 3 | BYTES) + varint(num_bytes)


def bytes_field(number: int, value: bytes) -> bytes:
    """Write a string, a bytes field, a packed list or a whole message."""
    return bytes_header(number, len(value)) + value
