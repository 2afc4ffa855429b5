"""The descriptor is compared, both ways, with tables of BVLC Caffe's schema, which lie beside this file."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from dtrain.proto import caffe_pb2

FOLDER = Path(__file__).parent
# Of layers that Caffe's forks have, by the field of LayerParameter that holds each, and dtrain's own.
FORKS_MESSAGES = {
    "focal_loss_param": "FocalLossParameter",
    "interp_param": "InterpParameter",
    "layer_norm_param": "LayerNormParameter",
    "norm_param": "NormalizeParameter",
    "permute_param": "PermuteParameter",
    "psroi_pooling_param": "PSROIPoolingParameter",
    "relu6_param": "ReLU6Parameter",
    "roi_pooling_param": "ROIPoolingParameter",
    "shuffle_channel_param": "ShuffleChannelParameter",
    "smooth_l1_loss_param": "SmoothL1LossParameter",
    "upsample_param": "UpsampleParameter",
}
OUR_MESSAGES = {
    "DtrainSolverParameter",
    "DtrainLayerParameter",
    "MonitorParameter",
    *FORKS_MESSAGES.values(),
}
OUR_ENUMS = {"Precision"}  # beside those in our messages, where FLOAT32 is another's
OUR_FIELDS = {
    ("SolverParameter", "dtrain_param", 10001, "DtrainSolverParameter"),
    ("LayerParameter", "dtrain_param", 10001, "DtrainLayerParameter"),
    ("DropoutParameter", "scale_train", 10001, ""),
    *(
        ("LayerParameter", field, 10010 + i, message)
        for i, (field, message) in enumerate(FORKS_MESSAGES.items())
    ),
}
LABELS = {
    "optional": FieldDescriptorProto.LABEL_OPTIONAL,
    "repeated": FieldDescriptorProto.LABEL_REPEATED,
    "required": FieldDescriptorProto.LABEL_REQUIRED,
}
SCALAR_TYPES = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in ("int32", "int64", "uint32", "float", "double", "bool", "string", "bytes")
}


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


SCHEMA = _rows("caffe_schema.tsv")
ENUMS = _rows("caffe_enums.tsv")
FILE = FileDescriptorProto()
caffe_pb2.DESCRIPTOR.CopyToProto(FILE)
MESSAGES: dict[str, DescriptorProto] = {message.name: message for message in FILE.message_type}


def _type(field: FieldDescriptor) -> str:
    """Return a field's type in the form that the table uses for it."""
    if field.message_type is not None:
        return "message:" + field.message_type.full_name.removeprefix("caffe.")
    if field.enum_type is not None:
        return "enum:" + field.enum_type.full_name.removeprefix("caffe.")
    return SCALAR_TYPES[field.type]


def _default(field: FieldDescriptor) -> str | float | bool:
    """Return a field's default in the form that the table uses for it."""
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[field.default_value].name)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return str(field.default_value).lower()
    if field.type == FieldDescriptor.TYPE_STRING:
        return str(field.default_value)
    return float(field.default_value)


@pytest.mark.parametrize("row", SCHEMA, ids=lambda row: f"{row['message']}.{row['field']}")
def test_field_of_caffe_is_in_the_descriptor(row: dict[str, str]) -> None:
    field = caffe_pb2.DESCRIPTOR.message_types_by_name[row["message"]].fields_by_name[row["field"]]
    proto = next(proto for proto in MESSAGES[row["message"]].field if proto.name == row["field"])
    assert field.number == int(row["number"])
    assert proto.label == LABELS[row["label"]]
    assert proto.options.packed == (row["packed"] == "true")
    assert not proto.options.deprecated
    assert field.has_default_value == bool(row["default"])
    assert _type(field) == row["type"]
    if row["default"]:
        default = _default(field)
        if isinstance(default, float):
            assert default == pytest.approx(float(row["default"]), rel=1e-6)
        else:
            assert default == row["default"]


def test_fields_that_caffe_lacks_are_dtrains_own() -> None:
    of_caffe = {(row["message"], row["field"]) for row in SCHEMA}
    others = {
        (message.name, field.name, field.number, field.type_name.removeprefix(".caffe."))
        for message in FILE.message_type
        for field in message.field
        if message.name not in OUR_MESSAGES and (message.name, field.name) not in of_caffe
    }
    assert others == OUR_FIELDS


def test_messages_that_caffe_lacks_are_dtrains_own() -> None:
    assert set(MESSAGES) - {row["message"] for row in SCHEMA} == OUR_MESSAGES


def test_enums_are_caffes_and_no_others() -> None:
    in_table = {(row["enum"], row["value"], int(row["number"])) for row in ENUMS}
    enums = {enum.name: enum for enum in FILE.enum_type if enum.name not in OUR_ENUMS}
    enums |= {
        f"{message.name}.{enum.name}": enum
        for message in FILE.message_type
        for enum in message.enum_type
        if message.name not in OUR_MESSAGES
    }
    in_file = {(name, value.name, value.number) for name, enum in enums.items() for value in enum.value}
    assert in_file == in_table


def test_descriptor_of_the_file_has_a_name_of_its_own() -> None:
    assert caffe_pb2.DESCRIPTOR.name == "dtrain/proto/caffe.proto"
    assert caffe_pb2.DESCRIPTOR.package == "caffe"


def test_dtrain_param_unset_means_what_caffe_does() -> None:
    assert not caffe_pb2.SolverParameter().dtrain_param.test_on_rank_0
    assert not caffe_pb2.LayerParameter().dtrain_param.shuffle


def test_blob_on_the_wire_is_packed_as_caffe_writes_it() -> None:
    # shape (field 7): dim (field 1) packed [2]; data (field 5) packed, 1.0 and 2.0 as little-endian float32.
    blob = caffe_pb2.BlobProto(shape=caffe_pb2.BlobShape(dim=[2]), data=[1.0, 2.0])
    assert blob.SerializeToString() == (
        b"\x2a\x08\x00\x00\x80\x3f\x00\x00\x00\x40"  # field 5
        b"\x3a\x03\x0a\x01\x02"  # field 7
    )


def test_generated_code_has_the_fields_of_caffe_proto_in_its_order() -> None:
    text = Path(caffe_pb2.__file__).with_name("caffe.proto").read_text(encoding="utf-8")
    written: list[tuple[str, str, int]] = []
    message = ""
    for line in text.splitlines():
        opened = re.match(r"message (\w+)", line)
        field = re.match(r"  (?:optional|repeated|required) [\w.]+ (\w+) = (\d+)", line)
        if opened:
            message = opened[1]
        elif field:
            written.append((message, field[1], int(field[2])))
    generated = [
        (message.name, field.name, field.number) for message in FILE.message_type for field in message.field
    ]
    assert written == generated, "run dtrain/proto/generate.sh"
