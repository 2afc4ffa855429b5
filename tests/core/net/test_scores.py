from __future__ import annotations

import pytest

from dtrain.core.net.net import Net
from dtrain.core.net.scores import Score, name_values, output_lines, output_values
from tests.core.net_builder import inputs, make_net


@pytest.fixture
def net() -> Net:
    """Outputs in alphabetical order: half (weight 0.5), loss (weight 1), wide (two values)."""
    text = (
        inputs(wide=(1, 2), x=(1, 2), y=(1, 2))
        + '\nlayer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" }'
        + '\nlayer { name: "h" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "half" loss_weight: 0.5 }'
    )
    net = make_net(text)
    for name, values in (("wide", (8, 9)), ("x", (1, 5)), ("y", (0, 2))):
        net.blobs[name].data[...] = values
    return net


def test_output_values_are_all_values_in_the_order_of_the_names(net: Net) -> None:
    net.forward()
    assert output_values(net).tolist() == [5, 5, 8, 9]  # (1² + 3²) / 2 = 5


def test_name_values_gives_each_value_its_blob_s_name_and_weight(net: Net) -> None:
    assert name_values(net, [1, 2, 3, 4]) == [
        Score("half", 1, 0.5),
        Score("loss", 2, 1),
        Score("wide", 3, 0),
        Score("wide", 4, 0),
    ]


def test_output_values_of_a_net_without_outputs_are_none() -> None:
    net = make_net(inputs(x=(2,)) + '\nlayer { name: "s" type: "Silence" bottom: "x" }')
    assert output_values(net).size == 0
    assert name_values(net, []) == []


def test_output_lines_are_caffe_s_word_for_word() -> None:
    scores = [Score("accuracy", 0.9912, 0), Score("loss", 0.0287561234, 1), Score("aux", 2.5, 0.3)]
    assert output_lines("Test", scores) == [
        "    Test net output #0: accuracy = 0.9912",
        "    Test net output #1: loss = 0.0287561 (* 1 = 0.0287561 loss)",
        "    Test net output #2: aux = 2.5 (* 0.3 = 0.75 loss)",
    ]
    assert output_lines("Train", scores[:1]) == ["    Train net output #0: accuracy = 0.9912"]
