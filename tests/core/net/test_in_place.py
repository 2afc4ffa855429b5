"""Nets whose layers work in place learn as the same nets with blobs of their own do."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.core.net_builder import make_net

SCALE = """layer {{ name: "over" type: "Scale" bottom: "{x}" top: "{y}"
           scale_param {{ filler {{ value: -1.5 }} bias_term: true }} }}"""
DROPOUT = 'layer {{ name: "over" type: "Dropout" bottom: "{x}" top: "{y}" }}'
LAYERS = (
    'type: "TanH"',
    'type: "Sigmoid"',
    'type: "Softmax"',
    'type: "ReLU"',
    'type: "ReLU" relu_param { negative_slope: 0.5 }',
    'type: "ELU"',
    'type: "Swish"',
    'type: "PReLU"',
    'type: "Exp"',
    'type: "BNLL"',
    'type: "BatchNorm"',
    'type: "MVN"',
    'type: "LRN"',
    'type: "Eltwise" bottom: "a" eltwise_param { operation: PROD stable_prod_grad: false }',
)


def gradient(layer: str, over: str, in_place: bool, layer_in_place: bool) -> NDArray[np.float32]:
    """Return the gradient of the weights below `layer`, over whose top `over` writes, in place or not."""
    y = "a" if layer_in_place else "b"
    behind = re.sub(" +", " ", over.format(x=y, y=y if in_place else "c"))
    net = make_net(f"""
        layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 4 dim: 3 dim: 2 dim: 2 }} }} }}
        layer {{ name: "t" type: "Input" top: "t" input_param {{ shape {{ dim: 4 dim: 3 dim: 2 dim: 2 }} }} }}
        layer {{ name: "conv" type: "Convolution" bottom: "x" top: "a"
                 convolution_param {{ num_output: 3 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "f" bottom: "a" top: "{y}" {layer} }}
        {behind}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "{y if in_place else "c"}" bottom: "t" top: "loss" }}
    """)
    random = np.random.default_rng(3)
    for name in ("x", "t"):
        net.blobs[name].data[...] = random.standard_normal(net.blobs[name].shape)
    net.forward()
    net.backward()
    return np.concatenate([blob.diff.reshape(-1) for blob in net.params["conv"]])


@pytest.mark.parametrize("over", [SCALE, DROPOUT], ids=["scale", "dropout"])
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_whose_top_is_overwritten_gives_the_same_gradient(layer: str, over: str) -> None:
    expected = gradient(layer, over, in_place=False, layer_in_place=False)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(gradient(layer, over, True, False), expected, rtol=2e-4, atol=1e-6)
    if "LRN" not in layer and "Eltwise" not in layer:  # these don't work in place themselves
        np.testing.assert_allclose(gradient(layer, over, True, True), expected, rtol=2e-4, atol=1e-6)
