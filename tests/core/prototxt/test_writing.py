from __future__ import annotations

from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.core.prototxt import parse_text, write_text
from dtrain.core.prototxt.ranges import Value
from dtrain.core.prototxt.schema import Field, ValueKind, schema_of
from dtrain.proto import caffe_pb2

SMALL = st.integers(-3, 12)
VALUES: dict[ValueKind, st.SearchStrategy[Value]] = {
    ValueKind.INTEGER: st.integers(-(2**63), 2**64 - 1) | SMALL,
    ValueKind.FLOAT: st.floats(allow_nan=False, width=32) | st.floats(0, 1, width=32) | SMALL,
    ValueKind.BOOL: st.booleans(),
    ValueKind.STRING: st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(["L1", "L2"]),
    ValueKind.BYTES: st.binary(max_size=8),
}


def _is_allowed(field: Field, value: Any) -> bool:
    if field.kind is ValueKind.INTEGER and not field.limits[0] <= float(value) <= field.limits[1]:
        return False
    return field.rule is None or field.rule.holds(value)


def _fill(draw: st.DrawFn, message: Message, container: str, depth: int) -> None:
    """Set some fields of a message to values that the reader must take."""
    schema = schema_of(message.DESCRIPTOR, container)
    chosen = draw(st.lists(st.sampled_from(sorted(schema.fields)), max_size=4, unique=True))
    for name in {*chosen, *schema.required}:
        field = schema.fields[name]
        for _ in range(draw(st.integers(1, 3)) if field.is_repeated else 1):
            if field.kind is ValueKind.MESSAGE:
                inner = getattr(message, name).add() if field.is_repeated else getattr(message, name)
                inner.SetInParent()
                if depth or schema_of(inner.DESCRIPTOR).required:
                    _fill(draw, inner, field.container, depth - 1)
                continue
            is_enum = field.kind is ValueKind.ENUM
            values = st.sampled_from(sorted(field.enum_numbers.values())) if is_enum else VALUES[field.kind]
            value = draw(values.filter(partial(_is_allowed, field)))
            if field.is_repeated:
                getattr(message, name).append(value)
            else:
                setattr(message, name, value)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    kinds: list[type[Message]] = [
        caffe_pb2.NetParameter,
        caffe_pb2.SolverParameter,
        caffe_pb2.LayerParameter,
        caffe_pb2.Datum,
    ]
    message: Message = draw(st.sampled_from(kinds))()
    _fill(draw, message, "", depth=3)
    return message


@settings(max_examples=150, deadline=None)
@given(messages())
def test_write_text_then_parse_gives_an_equal_message(message: Message) -> None:
    assert parse_text(write_text(message), type(message)).message == message


def test_write_text_of_floats_is_as_short_as_they_were_written() -> None:
    solver = caffe_pb2.SolverParameter(base_lr=0.01, momentum=0.9, weight_decay=0.0005, delta=1e-8)
    assert write_text(solver) == "base_lr: 0.01\nmomentum: 0.9\nweight_decay: 0.0005\ndelta: 1e-08\n"


def test_write_text_of_a_layer_indents_and_keeps_scripts_legible() -> None:
    layer = caffe_pb2.LayerParameter(name="größe 大小", type="Pooling")
    layer.pooling_param.pool = caffe_pb2.PoolingParameter.AVE
    assert write_text(layer) == 'name: "größe 大小"\ntype: "Pooling"\npooling_param {\n  pool: AVE\n}\n'


def test_values_of_the_round_trip_cover_every_kind_of_field() -> None:
    assert {*VALUES, ValueKind.ENUM, ValueKind.MESSAGE} == set(ValueKind)
    assert FieldDescriptor.TYPE_GROUP not in {
        field.type
        for message in caffe_pb2.DESCRIPTOR.message_types_by_name.values()
        for field in message.fields
    }
