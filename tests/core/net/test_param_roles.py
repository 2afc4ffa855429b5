from __future__ import annotations

import pytest
from google.protobuf import text_format

from dtrain.core.net.param_roles import NORMALISATIONS, is_bias, is_normalisation
from dtrain.proto import caffe_pb2


def layer_of(text: str) -> caffe_pb2.LayerParameter:
    return text_format.Parse(f"type: {text}", caffe_pb2.LayerParameter())


@pytest.mark.parametrize(
    ("layer", "num_params", "biases"),
    [
        ('"Convolution"', 2, [1]),
        ('"Convolution"', 1, []),
        ('"Deconvolution"', 2, [1]),
        ('"InnerProduct"', 2, [1]),
        ('"InnerProduct"', 1, []),
        ('"Embed"', 2, [1]),
        ('"LSTM"', 3, [1]),
        ('"LSTM"', 4, [1]),
        ('"RNN"', 5, [1, 4]),
        ('"RNN"', 6, [1, 5]),
        ('"BatchNorm"', 3, []),
        ('"Scale"', 1, []),
        ('"Scale" scale_param { bias_term: true }', 2, [1]),
        ('"Scale" scale_param { bias_term: true }', 1, [0]),  # two bottoms: the factor is no param
        ('"Bias"', 1, [0]),
        ('"PReLU"', 1, []),
        ('"LayerNorm"', 2, [1]),
        ('"Python"', 3, []),
    ],
)
def test_is_bias_goes_by_type_and_place(layer: str, num_params: int, biases: list[int]) -> None:
    found = [index for index in range(num_params) if is_bias(layer_of(layer), index, num_params)]
    assert found == biases


def test_is_normalisation_is_true_for_six_types() -> None:
    types = ["BatchNorm", "Bias", "LayerNorm", "Normalize", "PReLU", "Scale"]
    assert sorted(NORMALISATIONS) == types
    assert all(is_normalisation(layer_of(f'"{name}"')) for name in types)
    assert not is_normalisation(layer_of('"Convolution"'))
