"""Refusals: what a layer can't do of what backward asks is said, each thing once, and nothing of what it can."""

from __future__ import annotations

import pytest

from dtrain.core.graph.gradient_flow import Needs
from dtrain.core.layers.layer import InPlace
from dtrain.core.net.net import Net
from dtrain.core.net.refusals import find_refusals
from tests.core.net_builder import TEST, inputs, make_net

LAYERS = (
    inputs(a=(2, 3), label=(2,))
    + """
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 3 } }
layer { name: "relu" type: "ReLU" bottom: "y" top: "y" }
layer { name: "over" type: "Threshold" bottom: "y" top: "z" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "z" bottom: "label" top: "loss" }"""
)


@pytest.fixture
def net() -> Net:
    return make_net(LAYERS, TEST)


def refusals_of(net: Net, **asked: list[bool]) -> dict[str, list[str]]:
    """Return what layers refuse if these bottoms' gradients are asked of those named, and none of others."""
    needs = [
        Needs(name in asked, asked.get(name, [False] * len(bottoms)), [])
        for name, bottoms in zip(net.layer_names, net.bottoms, strict=True)
    ]
    found = find_refusals(net.layers, needs, net.bottom_names)
    return {net.layer_names[i]: reasons for i, reasons in found.items()}


def test_find_refusals_of_layers_that_have_what_is_asked_is_empty(net: Net) -> None:
    assert refusals_of(net) == {}
    assert refusals_of(net, ip=[True], relu=[True], over=[False], loss=[True, False]) == {}


def test_find_refusals_names_layers_without_gradient_and_bottoms_that_get_none(net: Net) -> None:
    assert refusals_of(net, relu=[True], over=[True], loss=[True, True]) == {
        "over": ["Threshold has no gradient, but what it reads is learned through it"],
        "loss": [
            'bottom "label" can\'t get a gradient from SoftmaxWithLoss, but comes from layers that learn; '
            "set propagate_down: false for it"
        ],
    }


def test_find_refusals_in_place_is_of_layers_that_then_have_no_gradient(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(net.layers[net.layer_names.index("relu")]), "in_place", InPlace.FORWARD_ONLY)
    monkeypatch.setattr(type(net.layers[net.layer_names.index("ip")]), "in_place", InPlace.FORWARD_ONLY)
    assert refusals_of(net, relu=[False]) == {}
    assert refusals_of(net, ip=[True], relu=[True]) == {
        "relu": ["ReLU can't work in place where a gradient flows back"]
    }
