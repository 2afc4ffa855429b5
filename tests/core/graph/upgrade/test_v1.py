"""Layers of 2014 become today's."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade.v1 import TYPES, V1_TO_TODAY
from dtrain.proto import caffe_pb2
from tests.core.graph.upgrade.documents import message_of, net_of

# Caffe's registered types, without the marks by which the enum's names differ.
REGISTERED = [
    "AbsVal",
    "Accuracy",
    "ArgMax",
    "BNLL",
    "Concat",
    "ContrastiveLoss",
    "Convolution",
    "Data",
    "Deconvolution",
    "Dropout",
    "DummyData",
    "EuclideanLoss",
    "Eltwise",
    "Exp",
    "Flatten",
    "HDF5Data",
    "HDF5Output",
    "HingeLoss",
    "Im2col",
    "ImageData",
    "InfogainLoss",
    "InnerProduct",
    "LRN",
    "MemoryData",
    "MultinomialLogisticLoss",
    "MVN",
    "Pooling",
    "Power",
    "ReLU",
    "Sigmoid",
    "SigmoidCrossEntropyLoss",
    "Silence",
    "Softmax",
    "SoftmaxWithLoss",
    "Split",
    "Slice",
    "TanH",
    "WindowData",
    "Threshold",
]


@pytest.mark.parametrize("name", caffe_pb2.V1LayerParameter.LayerType.keys())
def test_v1_type_becomes_the_registered_name(name: str) -> None:
    net = V1_TO_TODAY.apply(net_of(f'layers {{ name: "a" type: {name} }}')).message
    plain = {"SOFTMAX_LOSS": "softmaxwithloss"}.get(name, name.replace("_", "").lower())
    expected = next((known for known in REGISTERED if known.lower() == plain), "")
    assert net.layer[0].type == expected
    assert bool(expected) is (name != "NONE")


def test_v1_types_are_all_known() -> None:
    assert TYPES.keys() == set(caffe_pb2.V1LayerParameter.LayerType.keys())


def test_v1_layer_without_a_type_has_none() -> None:
    net = V1_TO_TODAY.apply(net_of('layers { name: "a" }')).message
    assert not net.layer[0].HasField("type")


def populate(message: Message, number: int = 1) -> int:
    """Set every field of a message, and of those in it, each number and text to another value."""
    for field in message.DESCRIPTOR.fields:
        number += 1
        target: Any = getattr(message, field.name)
        is_repeated = hasattr(target, "append")
        if field.message_type is not None:
            number = populate(target.add() if is_repeated else target, number)
            continue
        value = _value(field, number)
        if is_repeated:
            target.extend([value, value])
        else:
            setattr(message, field.name, value)
    return number


def _value(field: FieldDescriptor, number: int) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kinds = {FieldDescriptor.CPPTYPE_BOOL: True, FieldDescriptor.CPPTYPE_STRING: str(number)}
    return kinds.get(field.cpp_type, number)


def test_v1_layer_with_every_field_set_keeps_them_all() -> None:
    old = caffe_pb2.V1LayerParameter()
    populate(old)
    old.ClearField("layer")
    document = net_of("layers { }")
    document.message.layers[0].CopyFrom(old)
    new = V1_TO_TODAY.apply(document).message.layer[0]
    special = {"layer", "type", "param", "blob_share_mode", "blobs_lr", "weight_decay"}
    same = {field.name for field in old.DESCRIPTOR.fields} - special
    assert len(same) > 30
    for name in sorted(same):
        assert getattr(new, name) == getattr(old, name), name
    assert {field.name for field, _ in new.ListFields()} == same | {"type", "param"}
    assert [(spec.name, spec.share_mode, spec.lr_mult, spec.decay_mult) for spec in new.param] == [
        (old.param[i], caffe_pb2.ParamSpec.PERMISSIVE, old.blobs_lr[i], old.weight_decay[i]) for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "blobs_lr: 1 blobs_lr: 2 weight_decay: 1",
            "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 }",
        ),
        ('param: "w"', 'param { name: "w" }'),
        (
            'param: "" param: "b" blob_share_mode: STRICT blob_share_mode: PERMISSIVE',
            'param { name: "" share_mode: STRICT } param { name: "b" share_mode: PERMISSIVE }',
        ),
        (
            'param: "w" blobs_lr: 0 blobs_lr: 0.5 blobs_lr: 3',
            'param { name: "w" lr_mult: 0 } param { lr_mult: 0.5 } param { lr_mult: 3 }',
        ),
        ("weight_decay: 0", "param { decay_mult: 0 }"),
        ("loss_weight: 0.5", "loss_weight: 0.5"),
        (
            "include { phase: TRAIN not_stage: 'a' } exclude { min_level: 2 }",
            "include { phase: TRAIN not_stage: 'a' } exclude { min_level: 2 }",
        ),
    ],
)
def test_v1_params_become_specs(old: str, new: str) -> None:
    net = V1_TO_TODAY.apply(net_of(f'layers {{ name: "a" type: RELU bottom: "x" top: "y" {old} }}')).message
    assert net == message_of(f'layer {{ name: "a" type: "ReLU" bottom: "x" top: "y" {new} }}')


def test_v1_net_keeps_what_is_not_of_its_layers() -> None:
    rest = 'name: "n" input: "x" input_shape { dim: 1 } force_backward: true debug_info: true state { stage: "s" }'
    net = V1_TO_TODAY.apply(net_of(rest + ' layers { name: "a" type: RELU }')).message
    assert net == message_of(rest + ' layer { name: "a" type: "ReLU" }')


def test_v1_beside_today_s_layers_is_refused_with_both_lines() -> None:
    text = 'layer { name: "a" type: "ReLU" }\nlayers { name: "b" type: RELU }'
    with pytest.raises(UserError) as error:
        V1_TO_TODAY.apply(net_of(text))
    assert str(error.value) == (
        "net.prototxt:2: a net must have `layer` with a string as type or `layers` of 2014 with an enum, got both, "
        "`layer` in line 1; write all as `layer`"
    )


def test_v1_lines_are_those_of_the_fields_that_were_moved() -> None:
    text = """name: "n"
      layers { name: "a" type: RELU
        relu_param {
          negative_slope: 2 }
        blobs_lr: 1
        param: "w"
        top: "y" }"""
    document = V1_TO_TODAY.apply(net_of(text))
    lines = {
        ("layer", 0): 2,
        ("layer", 0, "relu_param", "negative_slope"): 4,
        ("layer", 0, "param", 0): 5,
        ("layer", 0, "param", 0, "lr_mult"): 5,
        ("layer", 0, "param", 0, "name"): 6,
        ("layer", 0, "top", 0): 7,
    }
    assert {path: document.line(*path) for path in lines} == lines
    assert document.where("layer", 0, "top") == "net.prototxt:7"
