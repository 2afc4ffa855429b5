"""The table behind Caffe's lines: figures of known times, and where layers of a real net run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import Engine, create_engine
from dtrain.core.errors import MissingLibrary
from dtrain.core.layers.layer import FusedLayers
from dtrain.core.net.fusion import Group
from dtrain.launcher.layer_table import engine_of, find_layouts, layer_table, layout_of
from dtrain.launcher.layer_times import LayerTimes
from tests.core.net_builder import inputs, make_net

PRODUCTS = """
layer { name: "first" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 500 } }
layer { name: "second" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 5 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "y" top: "loss" }
"""
NORMS = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 16 kernel_size: 1 } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "norm" }
layer { name: "scale" type: "Scale" bottom: "norm" top: "norm" }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "drop" type: "Dropout" bottom: "norm" top: "drop" }
layer { name: "loss" type: "EuclideanLoss" bottom: "drop" bottom: "y" top: "loss" }
"""
IMAGES = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" convolution_param { num_output: 32 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "drop" }
layer { name: "twice" type: "Power" bottom: "drop" top: "twice" power_param { scale: 2 } }
layer { name: "quiet" type: "Silence" bottom: "twice" }
"""


@pytest.fixture
def onednn() -> Engine:
    """Return the oneDNN engine."""
    try:
        return create_engine("onednn")
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")


def test_layer_table_of_known_times_has_their_rates_and_shares() -> None:
    net = make_net(inputs(x=(8, 1000), y=(8, 5)) + PRODUCTS)
    times = LayerTimes(
        tuple(net.layer_names),
        np.array([[0.0, 0.0, 1.0, 3.0, 0.5], [0.0, 0.0, 3.0, 3.0, 0.5]]),
        np.array([[0.0, 0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 3.0, 0.0]]),
    )
    # first: 2·8·1000·500 = 8 MFLOP forward and, since x needs no gradient, as many backward, in 4 ms; second: 40
    # kFLOP forward, 80 backward, in 4.5 ms; 9 ms together.
    assert layer_table(net, times, ["plain"] * 5) == [
        "  layer   type           engine     layout  fwd ms  bwd ms  GFLOP/s   share",
        "  x       Input          numpy      plain    0.000   0.000        -    0.0%",
        "  y       Input          numpy      plain    0.000   0.000        -    0.0%",
        "  first   InnerProduct   reference  plain    2.000   2.000      4.0   44.4%",
        "  second  InnerProduct   reference  plain    3.000   1.500      0.0   50.0%",
        "  loss    EuclideanLoss  numpy      plain    0.500   0.000        -    5.6%",
        "  total                                      5.500   3.500      1.8  100.0%",
        "  9.000 ms for 8 images: 888.9 images/s",
    ]


def test_layer_table_of_clocks_that_stand_still_divides_by_nothing() -> None:
    net = make_net(inputs(x=(8, 10), y=(8, 5)) + PRODUCTS)
    zeros = np.zeros((1, 5))
    lines = layer_table(net, LayerTimes(tuple(net.layer_names), zeros, zeros), [""] * 5)
    assert lines[-1].split() == ["total", "0.000", "0.000", "-", "0.0%"]


class Products(FusedLayers):
    """Stands for the two products of PRODUCTS as one."""

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Not called."""

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Not called."""


def test_layer_table_of_layers_that_run_as_one_says_so_and_has_one_rate() -> None:
    net = make_net(inputs(x=(8, 1000), y=(8, 5)) + PRODUCTS)
    net.groups = dict.fromkeys((2, 3), Group(2, 3, Products(), ((2, 0),)))
    times = LayerTimes(
        tuple(net.layer_names), np.array([[0, 0, 4.0, 0, 0.5]]), np.array([[0.0, 0.0, 0.0, 12.06, 0.0]])
    )
    # 16 MFLOP of the first, 120 kFLOP of the second, in 16.06 ms.
    lines = layer_table(net, times, ["plain", "plain", "", "plain", "plain"])
    assert [line.split() for line in lines[3:5]] == [
        ["first", "InnerProduct", "numpy", "4.000", "0.000", "1.0", "24.2%"],
        ["second", "InnerProduct", "fused", "plain", "0.000", "12.060", "-", "72.8%"],
    ]


def test_find_layouts_of_layers_that_run_as_one_are_the_last_ones(onednn: Engine) -> None:
    net = make_net(inputs(x=(2, 16, 8, 8), y=(2, 16, 8, 8)) + NORMS, engine=onednn)
    net.fuse()
    layouts = dict(zip(net.layer_names, find_layouts(net), strict=True))
    assert layouts["norm"] == layouts["scale"] == ""
    assert layouts["relu"] != ""
    assert engine_of(net.groups[net.layer_names.index("norm")].layers) == "onednn"


def test_find_layouts_on_the_reference_engine_are_plain() -> None:
    net = make_net(inputs(x=(2, 16, 8, 8)) + IMAGES)
    assert find_layouts(net) == ["", "plain", "plain", "plain", "plain", ""]  # nobody has written x
    assert [engine_of(layer) for layer in net.layers[1:4]] == ["reference"] * 3


def test_find_layouts_on_onednn_name_what_each_layer_has_left(onednn: Engine) -> None:
    net = make_net(inputs(x=(2, 16, 8, 8)) + IMAGES, engine=onednn)
    layouts = find_layouts(net)
    assert layouts[1] == layouts[2]  # ReLU works on what comes
    assert layouts[1] in {"nchw", "nhwc", "nChw8c", "nChw16c", "plain"}
    assert layouts[4] == "plain"
    assert [engine_of(layer) for layer in net.layers[1:5]] == ["onednn", "onednn", "reference", "numpy"]


def test_layout_of_values_in_a_layout_and_on_the_host_is_the_layouts(onednn: Engine) -> None:
    net = make_net(inputs(x=(2, 16, 8, 8)) + IMAGES, engine=onednn)
    layouts = find_layouts(net)
    net.blobs["conv"].read_data()
    assert layout_of(net.blobs["conv"]) == layouts[2]
    blob = Blob((2, 3))
    assert layout_of(blob) == ""
    blob.write_data()
    assert layout_of(blob) == "plain"
