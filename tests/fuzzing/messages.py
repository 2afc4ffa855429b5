"""Random messages: any fields of any message of caffe.proto, with values that the reader of prototxt must take.

Drawn from the descriptors of caffe_pb2 and the rules of core/prototxt/ranges.py, and from nothing else of the
reader, so that a field which the reader knows wrongly is found.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message
from hypothesis import strategies as st

from dtrain.core.fillers import FILLERS
from dtrain.core.layers import LAYERS
from dtrain.core.prototxt.ranges import Rule, rule_for

Strategy = st.SearchStrategy[Any]

MAX_FIELDS, MAX_ITEMS, MAX_DEPTH = 4, 3, 4

_INTEGERS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_WIDTHS = {FieldDescriptor.CPPTYPE_FLOAT: 32, FieldDescriptor.CPPTYPE_DOUBLE: 64}
_LARGEST_FLOAT, _SMALLEST_FLOAT = (2.0 - 2.0**-23) * 2.0**127, 2.0**-149
_FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 0.25, 2.0, 256.0, 1e30, math.inf, -math.inf, math.nan),
    *(_LARGEST_FLOAT, -_LARGEST_FLOAT, _SMALLEST_FLOAT, 2.0**-126),
)
_TEXTS = (
    "",
    "L1",
    "L2",
    "conv1",
    "TRAIN",
    "true",
    "inf",
    "0x1F",
    '"',
    "'",
    "\\",
    "#",
    "{",
    "a: 1",
    "größe 大小",
)
# What makes a net of random fields one that is not refused for its first word: by field, or message and field.
_BLOBS = ("data", "label", "a", "b", "c")
_LIKELY = {
    **dict.fromkeys(("name", "bottom", "top", "input"), _BLOBS),
    **dict.fromkeys(("stage", "not_stage"), ("train", "deploy")),
    "LayerParameter.type": tuple(LAYERS),
    "V0LayerParameter.type": (
        "conv",
        "pool",
        "padding",
        "relu",
        "innerproduct",
        "data",
        "softmax_loss",
        "concat",
    ),
    "FillerParameter.type": tuple(FILLERS),
}


def messages(*kinds: type[Message]) -> st.SearchStrategy[Message]:
    """Return the strategy of messages of any of the `kinds`, required fields always set."""

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = draw(st.sampled_from(kinds))()
        _fill(draw, message, "", MAX_DEPTH)
        return message

    return build()


@cache
def labels(descriptor: Descriptor) -> dict[str, int]:
    """Return the label (optional, repeated or required) of each of a message's fields."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    return {field.name: field.label for field in proto.field}


def is_repeated(field: FieldDescriptor) -> bool:
    """Tell whether a field may be given several times."""
    return labels(field.containing_type)[field.name] == FieldDescriptorProto.LABEL_REPEATED


def _fill(draw: st.DrawFn, message: Message, container: str, depth: int) -> None:
    names = labels(message.DESCRIPTOR)
    required = [name for name, label in names.items() if label == FieldDescriptorProto.LABEL_REQUIRED]
    chosen = draw(st.lists(st.sampled_from(sorted(names)), max_size=MAX_FIELDS, unique=True)) if names else []
    for name in dict.fromkeys([*chosen, *required]):
        field = message.DESCRIPTOR.fields_by_name[name]
        if not is_repeated(field):
            _set(draw, message, field, container, depth)
            continue
        for _ in range(draw(st.integers(1, MAX_ITEMS))):
            _set(draw, message, field, container, depth)


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor, container: str, depth: int) -> None:
    values = getattr(message, field.name)
    if field.message_type is not None:
        inner = values.add() if is_repeated(field) else values
        inner.SetInParent()
        _fill(draw, inner, f"{field.containing_type.name}.{field.name}", depth - 1) if depth else None
        return
    value = draw(_scalars(field, container))
    if is_repeated(field):
        values.append(value)
    else:
        setattr(message, field.name, value)


@cache
def _scalars(field: FieldDescriptor, container: str) -> Strategy:
    """Return the strategy of one field's values, in the place `container` where its message stands."""
    rule = rule_for(field.containing_type.name, field.name, container)
    if field.cpp_type in _INTEGERS:
        low, high = _INTEGERS[field.cpp_type]
        edges = [value for value in (low, -1, 0, 1, 2, 8, 9, 255, high) if low <= value <= high]
        return _allowed(rule, edges, st.integers(low, high))
    if field.cpp_type in _WIDTHS:
        width = _WIDTHS[field.cpp_type]
        anywhere = st.floats(allow_nan=False, width=width) | st.floats(0, 1, width=width)
        return _allowed(rule, _FLOATS, anywhere)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return st.binary(max_size=8)
    likely = _LIKELY.get(f"{field.containing_type.name}.{field.name}") or _LIKELY.get(field.name, ())
    anywhere = _allowed(rule, _TEXTS, st.text(st.characters(codec="utf-8"), max_size=8))
    return st.sampled_from(likely) | st.sampled_from(likely) | anywhere if likely else anywhere


def _allowed(rule: Rule | None, edges: Any, anywhere: Strategy) -> Strategy:
    """Return the values of both kinds that `rule` allows."""
    if rule is None:
        return st.sampled_from(edges) | anywhere
    kept = st.sampled_from([value for value in edges if rule.holds(value)])
    return kept if isinstance(edges[0], str) else kept | anywhere.filter(rule.holds) | kept
