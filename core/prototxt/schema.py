"""What the reader of prototxt needs to know of a message, taken once from its protobuf descriptor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

from dtrain.core.prototxt.ranges import Rule, rule_for


class ValueKind(Enum):
    """Name what a field holds, in the words that complete "must be …"."""

    INTEGER = "a whole number"
    FLOAT = "a number"
    BOOL = "true or false"
    STRING = "text in quotes"
    BYTES = "text in quotes, of bytes"
    ENUM = "one of its names"
    MESSAGE = "{ … }"


@dataclass(frozen=True)
class Field:
    """Describe one field of a message.

    Arguments:
        name: as in prototxt.
        kind: what it holds.
        is_repeated: whether it may be given several times.
        is_required: whether it must be given.
        limits: least and greatest value of an INTEGER's or FLOAT's type.
        enum_numbers: number of each name of an ENUM, in the order of caffe.proto.
        message: descriptor of a MESSAGE.
        container: ``Message.field``, as ranges.rule_for wants it.
        rule: what caffe.proto cannot say about its values.
    """

    name: str
    kind: ValueKind
    is_repeated: bool
    is_required: bool
    limits: tuple[float, float]
    enum_numbers: Mapping[str, int]
    message: Descriptor | None
    container: str
    rule: Rule | None


@dataclass(frozen=True)
class Schema:
    """Hold the fields of a message by name, and the names of those that are required."""

    name: str
    fields: Mapping[str, Field]
    required: tuple[str, ...]


_INTEGER_LIMITS: dict[int, tuple[float, float]] = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
# The largest number that rounds to a float: the largest float itself is written 3.4028235e+38, which is more.
_LARGEST_SINGLE = math.nextafter((2.0 - 2.0**-24) * 2.0**127, 0.0)
_FLOAT_LIMITS: dict[int, tuple[float, float]] = {
    FieldDescriptor.CPPTYPE_FLOAT: (-_LARGEST_SINGLE, _LARGEST_SINGLE),
    FieldDescriptor.CPPTYPE_DOUBLE: (-float("inf"), float("inf")),
}
_OTHER_KINDS: dict[int, ValueKind] = {
    FieldDescriptor.CPPTYPE_BOOL: ValueKind.BOOL,
    FieldDescriptor.CPPTYPE_ENUM: ValueKind.ENUM,
    FieldDescriptor.CPPTYPE_MESSAGE: ValueKind.MESSAGE,
}


@cache
def schema_of(descriptor: Descriptor, container: str = "") -> Schema:
    """Describe a message for the reader.

    Arguments:
        descriptor: the message's descriptor.
        container: where it stands (``Message.field``), or "" for a file's outermost message.
    """
    # The labels come from the descriptor's own message: FieldDescriptor.label is leaving protobuf, and its
    # successors are not in 4.25 yet.
    labels = DescriptorProto()
    descriptor.CopyToProto(labels)
    fields = {
        proto.name: _field(descriptor.fields_by_name[proto.name], proto.label, descriptor.name, container)
        for proto in labels.field
    }
    return Schema(descriptor.name, fields, tuple(name for name, field in fields.items() if field.is_required))


def _field(descriptor: FieldDescriptor, label: int, message: str, container: str) -> Field:
    enum = descriptor.enum_type
    return Field(
        name=descriptor.name,
        kind=_kind(descriptor),
        is_repeated=label == FieldDescriptorProto.LABEL_REPEATED,
        is_required=label == FieldDescriptorProto.LABEL_REQUIRED,
        limits=(_INTEGER_LIMITS | _FLOAT_LIMITS).get(descriptor.cpp_type, (0, 0)),
        enum_numbers={value.name: value.number for value in enum.values} if enum else {},
        message=descriptor.message_type,
        container=f"{message}.{descriptor.name}",
        rule=rule_for(message, descriptor.name, container),
    )


def _kind(descriptor: FieldDescriptor) -> ValueKind:
    if descriptor.cpp_type in _INTEGER_LIMITS:
        return ValueKind.INTEGER
    if descriptor.cpp_type in _FLOAT_LIMITS:
        return ValueKind.FLOAT
    if descriptor.type == FieldDescriptor.TYPE_BYTES:
        return ValueKind.BYTES
    return _OTHER_KINDS.get(descriptor.cpp_type, ValueKind.STRING)
