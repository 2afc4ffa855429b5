from __future__ import annotations

import pytest
from google.protobuf.message import Message

from dtrain.core.prototxt.schema import schema_of
from dtrain.core.prototxt.unknown import unknown_field
from dtrain.proto import caffe_pb2


@pytest.mark.parametrize(
    ("name", "message", "sentence"),
    [
        (
            "kernal_size",
            caffe_pb2.ConvolutionParameter,
            'has no field "kernal_size"; did you mean "kernel_size"?',
        ),
        (
            "dropout_ratio",
            caffe_pb2.LayerParameter,
            'has no field "dropout_ratio"; it is a field of dropout_param',
        ),
        (
            "num_output",
            caffe_pb2.LayerParameter,
            'has no field "num_output"; it is a field of convolution_param, embed_param, …',
        ),
        ("xyz", caffe_pb2.ReLUParameter, 'has no field "xyz"; its fields are negative_slope, engine'),
        ("xyz", caffe_pb2.SolverParameter, 'has no field "xyz"'),
    ],
)
def test_unknown_field_says_what_may_have_been_meant(
    name: str, message: type[Message], sentence: str
) -> None:
    assert unknown_field(name, schema_of(message.DESCRIPTOR)) == sentence
