"""Layers of 2014 (V1, `layers` with an enum as type) turned into today's `layer` with a string.

Follows caffe's upgrade_proto.cpp (UpgradeV1Net): param, blob_share_mode, blobs_lr and weight_decay become
ParamSpecs; all else has the name that it has today.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from dtrain.core.errors import UserError
from dtrain.core.graph.upgrade.lines import move_layers
from dtrain.core.graph.upgrade.step import NetDocument, Step
from dtrain.core.prototxt import Path
from dtrain.proto import caffe_pb2

TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}
"""V1's types and what they are called today."""

# V1's repeated fields, one value for each param → the field of today's ParamSpec.
_SPEC_FIELDS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def _is_needed(net: caffe_pb2.NetParameter) -> bool:
    return len(net.layers) > 0


def _upgrade(document: NetDocument) -> NetDocument:
    """Return the net with `layer`s. Raises UserError for `layer` and `layers` in one net."""
    net = document.message
    if net.layer:
        raise UserError(
            f"{document.where('layers', 0)}: a net must have `layer` with a string as type or `layers` of 2014 "
            f"with an enum, got both, `layer` in line {document.line('layer', 0)}; write all as `layer`"
        )
    upgraded = caffe_pb2.NetParameter()
    upgraded.CopyFrom(net)
    upgraded.ClearField("layers")
    upgraded.layer.extend(_upgrade_layer(old) for old in net.layers)
    lines = move_layers(document.lines, "layers", _move)
    return replace(document, message=upgraded, lines=lines)


V1_TO_TODAY = Step("`layers` of 2014 (V1) are read as today's `layer`", _is_needed, _upgrade)


def _upgrade_layer(old: caffe_pb2.V1LayerParameter) -> caffe_pb2.LayerParameter:
    new = caffe_pb2.LayerParameter()
    for field, value in old.ListFields():
        if field.name == "type":
            new.type = TYPES[caffe_pb2.V1LayerParameter.LayerType.Name(value)]
        elif field.name in _SPEC_FIELDS:
            for i, item in enumerate(value):
                while len(new.param) <= i:
                    new.param.add()
                setattr(new.param[i], _SPEC_FIELDS[field.name], item)
        else:
            _copy(getattr(new, field.name), value, new, field.name)
    return new


def _copy(target: Any, value: Any, layer: caffe_pb2.LayerParameter, name: str) -> None:
    if isinstance(target, Message):
        target.CopyFrom(value)
    elif hasattr(target, "extend"):
        target.extend(value)
    else:
        setattr(layer, name, value)


def _move(index: int, inside: Path) -> Path:
    if len(inside) == 2 and inside[0] in _SPEC_FIELDS:
        inside = ("param", inside[1], _SPEC_FIELDS[str(inside[0])])
    return ("layer", index, *inside)
