"""How many classes made-up labels have, in nets whose layers know different numbers of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.net.building import build_net
from dtrain.core.net.label_limits import find_limits
from dtrain.data.sampler import Shard
from dtrain.data.synthetic_reader import Synthetic
from tests.core.net_builder import TEST, TRAIN, inputs, make_net, make_recipe

DATA = 'layer { name: "data" type: "Data" top: "data" top: "label" data_param { source: "absent" batch_size: 40 } }\n'
SCORES = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 7 } }
"""
LOSS = 'layer { name: "loss" type: "%s" bottom: "ip" bottom: "label" top: "loss" }\n'
SMALLER = """
layer { name: "few" type: "InnerProduct" bottom: "data" top: "few" inner_product_param { num_output: 3 } }
layer { name: "aux" type: "SoftmaxWithLoss" bottom: "few" bottom: "label" top: "aux" }
"""


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        (LOSS % "SoftmaxWithLoss", 7),
        (LOSS % "FocalLoss", 7),
        (LOSS % "HingeLoss", 7),
        (LOSS % "MultinomialLogisticLoss", 7),
        (LOSS % "Accuracy", 7),
        (LOSS % "SoftmaxWithLoss" + SMALLER, 3),  # one label for both: what both know
    ],
)
def test_find_limits_of_labels_is_the_number_of_scores(text: str, limit: int) -> None:
    net = make_net(inputs(data=(4, 5), label=(4,)) + SCORES + text)
    assert find_limits(net)["label"] == limit


def test_find_limits_of_labels_at_places_is_the_length_of_the_softmaxs_axis() -> None:
    loss = LOSS.replace("ip", "x") % "SoftmaxWithLoss"
    loss = loss.replace("top:", "softmax_param { axis: 2 } top:")
    assert find_limits(make_net(inputs(x=(2, 3, 5), label=(2, 3)) + loss)) == {"label": 5}


def test_find_limits_goes_through_layers_that_pass_values_on() -> None:
    text = """
    layer { name: "slice" type: "Slice" bottom: "both" top: "a" top: "b" slice_param { axis: 1 } }
    layer { name: "flat" type: "Flatten" bottom: "a" top: "flat" }
    layer { name: "one" type: "Accuracy" bottom: "x" bottom: "flat" top: "one" }
    layer { name: "words" type: "Embed" bottom: "b" top: "words" embed_param { num_output: 4 input_dim: 3 } }
    """
    limits = find_limits(make_net(inputs(x=(2, 9), both=(2, 2)) + text))
    assert (limits["a"], limits["b"], limits["both"]) == (9, 3, 3)


def test_find_limits_of_labels_that_are_values_is_none() -> None:
    text = 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "label" top: "loss" }'
    assert find_limits(make_net(inputs(x=(2, 3), label=(2, 3)) + text)) == {}


@pytest.mark.parametrize(
    ("text", "labels"), [(SCORES + LOSS % "SoftmaxWithLoss", range(7)), (SCORES, range(2))]
)
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_build_net_with_made_up_records_limits_their_labels(text: str, labels: range, phase: int) -> None:
    recipe = replace(make_recipe(DATA + text, phase), synthetic=Synthetic(((1, 2, 2),)))
    net = build_net(recipe, create_engine("reference"), Shard(0, 1))
    seen: set[float] = set()
    for _ in range(5):
        net.forward()
        seen.update(net.blobs["label"].data.tolist())
    net.close()
    assert seen == set(labels)  # 200 draws
