"""What convolutions share: which params they make. Values and mistakes are in test_convolution_layers.py."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.layers.parts.convolving import ConvolvingLayer
from tests.core.layers.layer_harness import make_rig


@pytest.mark.parametrize(
    ("name", "fields", "weight_shape"),
    [
        ("Convolution", "group: 2", (4, 3, 3, 2)),
        ("Deconvolution", "group: 2", (6, 2, 3, 2)),
        ("Convolution", "axis: 2", (4, 5, 3)),
        ("Deconvolution", "axis: 2", (5, 4, 3)),
        ("Deconvolution", "axis: 0", (2, 4, 3, 2, 1)),
    ],
)
def test_convolving_layer_makes_a_weight_for_its_direction(
    name: str, fields: str, weight_shape: tuple[int, ...]
) -> None:
    kernel = ", ".join(map(str, weight_shape[2:]))
    text = f'type: "{name}" convolution_param {{ num_output: 4 kernel_size: [{kernel}] {fields} }}'
    layer = make_rig(text, [np.zeros((2, 6, 5, 4))]).layer
    assert isinstance(layer, ConvolvingLayer)
    assert [blob.shape for blob in layer.blobs] == [weight_shape, (4,)]


def test_convolving_layer_gives_each_bottom_an_operation() -> None:
    text = 'type: "Deconvolution" convolution_param { num_output: 2 kernel_size: 2 }'
    layer = make_rig(text, [np.zeros((1, 3, 4, 4))] * 2, num_tops=2).layer
    assert isinstance(layer, ConvolvingLayer)
    assert len({id(operation) for operation in layer.operations}) == 2
