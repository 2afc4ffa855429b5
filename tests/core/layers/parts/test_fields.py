"""Tests of core/layers/parts/fields.py."""

from __future__ import annotations

import inspect
import re

import pytest

from dtrain.core.layers import LAYERS, Layer
from dtrain.core.layers.parts.fields import messages_of, unknown_extensions, unread_messages
from dtrain.proto import caffe_pb2
from tests.core.layers.layer_harness import parse_layer

FIELDS = {field.name for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields}
EXTENSIONS = {field.name for field in caffe_pb2.DtrainLayerParameter.DESCRIPTOR.fields}
# Types whose message has another name than they, or that read several: by Caffe's own sources.
OTHERS = {
    "ArgMax": {"argmax_param"},
    "Data": {"data_param", "transform_param"},
    "Deconvolution": {"convolution_param"},
    "Im2col": {"convolution_param"},
    "LSTM": {"recurrent_param"},
    "Normalize": {"norm_param"},
    "PReLU": {"prelu_param"},
    "RNN": {"recurrent_param"},
    "SoftmaxWithLoss": {"softmax_param", "loss_param"},
    "AbsVal": set(),
    "MultinomialLogisticLoss": set(),
}


@pytest.mark.parametrize(("name", "messages"), OTHERS.items())
def test_messages_of_a_type_are_those_that_caffe_reads(name: str, messages: set[str]) -> None:
    assert messages_of(name, LAYERS[name]) == messages


@pytest.mark.parametrize("name", list(LAYERS))
def test_type_declares_what_its_code_reads(name: str) -> None:
    classes = [each for each in LAYERS[name].__mro__ if issubclass(each, Layer) and each is not Layer]
    code = "".join(inspect.getsource(each) for each in classes)
    read = set(re.findall(r"self\.param\.(\w+_param)\b", code)) - {"dtrain_param", "transform_param"}
    assert read <= messages_of(name, LAYERS[name]) <= FIELDS
    extensions = set(re.findall(r"dtrain_param\.(\w+)", code)) & EXTENSIONS
    assert extensions <= set(LAYERS[name].extensions) <= EXTENSIONS


def test_unread_messages_names_what_another_type_would_read() -> None:
    param = parse_layer(
        'type: "ReLU" relu_param {} pooling_param { kernel_size: 2 } param { lr_mult: 1 } dtrain_param {}'
    )
    assert unread_messages(param, LAYERS["ReLU"]) == ["pooling_param"]


def test_unknown_extensions_names_what_the_type_does_not_know() -> None:
    param = parse_layer('type: "Data" dtrain_param { shuffle: true class_weight: 1 }')
    assert unknown_extensions(param, LAYERS["Data"]) == ["class_weight"]
    assert unknown_extensions(param, LAYERS["SoftmaxWithLoss"]) == ["shuffle"]
