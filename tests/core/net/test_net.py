from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.data.datum import encode_datum
from dtrain.data.lmdb_writer import write_lmdb
from dtrain.dist.activity import Activity
from tests.core.net_builder import TEST, TRAIN, inputs, make_net, make_recipe

Array = NDArray[Any]
AUX_WEIGHT = 0.25

# x ─ ip1 ─ relu (in place) ┬ ip2 ─ softmax loss
#                           └ euclidean loss against `target`, weight 0.25
TWO_LOSSES = (
    inputs(x=(4, 3), label=(4,), target=(4, 5))
    + """
layer { name: "ip1" type: "InnerProduct" bottom: "x" top: "h"
  inner_product_param { num_output: 5 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
layer { name: "ip2" type: "InnerProduct" bottom: "h" top: "scores"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" } bias_filler { type: "gaussian" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
layer { name: "aux" type: "EuclideanLoss" bottom: "h" bottom: "target" top: "aux" loss_weight: 0.25 }
"""
)


def feed(net: Net, seed: int = 0) -> dict[str, Array]:
    """Fill the inputs and return them in float64."""
    random = np.random.default_rng(seed)
    num_items = net.blobs["x"].shape[0]
    fed = {
        "x": random.standard_normal((num_items, 3)).astype(np.float32),
        "label": np.arange(num_items) % 2,
        "target": random.standard_normal((num_items, 5)).astype(np.float32),
    }
    for name, values in fed.items():
        net.blobs[name].data[...] = values
    return {name: values.astype(np.float64) for name, values in fed.items()}


def compute(fed: dict[str, Array], params: dict[str, list[Array]]) -> dict[str, Any]:
    """Return losses and gradients of TWO_LOSSES, written down in numpy."""
    x, label, target = fed["x"], fed["label"].astype(int), fed["target"]
    (w1, b1), (w2, b2) = params["ip1"], params["ip2"]
    num_items = len(x)
    linear = x @ w1.T + b1
    h = np.maximum(linear, 0)
    scores = h @ w2.T + b2
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    loss = -np.log(p[np.arange(num_items), label]).mean()
    aux = ((h - target) ** 2).sum() / (2 * num_items)
    d_scores = (p - np.eye(2)[label]) / num_items
    d_h = d_scores @ w2 + AUX_WEIGHT * (h - target) / num_items
    d_linear = d_h * (linear > 0)
    return {
        "loss": loss,
        "aux": aux,
        "ip1": [d_linear.T @ x, d_linear.sum(axis=0)],
        "ip2": [d_scores.T @ h, d_scores.sum(axis=0)],
        "x": d_linear @ w1,
    }


def params_of(net: Net) -> dict[str, list[Array]]:
    return {name: [blob.data.astype(np.float64) for blob in blobs] for name, blobs in net.params.items()}


def test_net_has_layers_blobs_and_params_by_name() -> None:
    net = make_net(TWO_LOSSES)
    splits = [name for name in net.layer_names if name.endswith("_split")]
    assert splits == ["h_relu_0_split"]
    assert [name for name in net.layer_names if name not in splits] == [
        *("x", "label", "target", "ip1", "relu", "ip2", "loss", "aux")
    ]
    assert list(net.blobs) == [
        *("x", "label", "target", "h", "h_relu_0_split_0", "h_relu_0_split_1", "scores", "loss", "aux")
    ]
    assert {name: [blob.shape for blob in blobs] for name, blobs in net.params.items()} == {
        "ip1": [(5, 3), (5,)],
        "ip2": [(2, 5), (2,)],
    }
    assert net.inputs == ["x", "label", "target"]
    assert net.outputs == ["aux", "loss"]  # sorted, as Caffe's log has them
    assert net.blob_loss_weights["aux"] == AUX_WEIGHT
    assert net.blob_loss_weights["loss"] == 1
    assert net.blob_loss_weights["scores"] == 0
    assert net.reading_layers == []


def test_forward_returns_the_weighted_sum_of_the_losses() -> None:
    net = make_net(TWO_LOSSES)
    expected = compute(feed(net), params_of(net))
    assert net.forward() == pytest.approx(expected["loss"] + AUX_WEIGHT * expected["aux"], rel=1e-5)
    assert float(net.blobs["loss"].data) == pytest.approx(expected["loss"], rel=1e-5)
    assert float(net.blobs["aux"].data) == pytest.approx(expected["aux"], rel=1e-5)


def test_backward_adds_to_the_params_diffs_and_overwrites_the_blobs() -> None:
    net = make_net("force_backward: true\n" + TWO_LOSSES)
    expected = compute(feed(net), params_of(net))
    net.clear_param_diffs()
    for times in (1, 2):
        net.forward()
        net.backward()
        for name in ("ip1", "ip2"):
            for blob, gradient in zip(net.params[name], expected[name], strict=True):
                np.testing.assert_allclose(blob.diff, times * gradient, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(net.blobs["x"].diff, expected["x"], rtol=1e-4, atol=1e-6)
    net.clear_param_diffs()
    assert not any(blob.diff.any() for blobs in net.params.values() for blob in blobs)


def test_backward_without_force_leaves_the_inputs_alone() -> None:
    net = make_net(TWO_LOSSES)
    feed(net)
    net.blobs["x"].diff[...] = 7
    net.forward()
    net.backward()
    assert (net.blobs["x"].diff == 7).all()
    assert not any(need.layer for need in net.needs[:3])


def test_backward_of_a_frozen_param_leaves_its_diff_alone() -> None:
    text = TWO_LOSSES.replace('top: "h"\n', 'top: "h" param { lr_mult: 0 }\n', 1)
    net = make_net(text)
    expected = compute(feed(net), params_of(net))
    net.clear_param_diffs()
    net.params["ip1"][0].diff[...] = 7
    net.forward()
    net.backward()
    assert (net.params["ip1"][0].diff == 7).all()
    np.testing.assert_allclose(net.params["ip1"][1].diff, expected["ip1"][1], rtol=1e-4, atol=1e-6)


def test_forward_of_a_part_gives_the_loss_of_that_part() -> None:
    net = make_net(TWO_LOSSES)
    expected = compute(feed(net), params_of(net))
    at_loss = net.layer_names.index("loss")
    assert net.forward(end=at_loss) == pytest.approx(expected["loss"], rel=1e-5)
    assert net.forward(start=at_loss + 1) == pytest.approx(AUX_WEIGHT * expected["aux"], rel=1e-5)


def test_backward_of_a_part_begins_from_the_diff_that_it_finds() -> None:
    net = make_net(TWO_LOSSES)
    fed = feed(net)
    w2 = params_of(net)["ip2"][0]
    net.forward()
    at_ip2 = net.layer_names.index("ip2")
    d_scores = np.arange(8, dtype=np.float64).reshape(4, 2)
    net.blobs["scores"].diff[...] = d_scores
    net.backward(start=at_ip2, end=at_ip2)
    np.testing.assert_allclose(net.blobs["h_relu_0_split_0"].diff, d_scores @ w2, rtol=1e-4, atol=1e-5)
    assert len(fed["x"]) == 4


def test_forward_after_an_input_was_reshaped_follows_it() -> None:
    net = make_net(TWO_LOSSES)
    for num_items in (7, 2, 4):
        for name in net.inputs:
            net.blobs[name].reshape(num_items, *net.blobs[name].shape[1:])
        expected = compute(feed(net, seed=num_items), params_of(net))
        net.clear_param_diffs()
        assert net.forward() == pytest.approx(expected["loss"] + AUX_WEIGHT * expected["aux"], rel=1e-5)
        net.backward()
        np.testing.assert_allclose(net.params["ip1"][0].diff, expected["ip1"][0], rtol=1e-4, atol=1e-6)
        assert net.blobs["scores"].shape == (num_items, 2)


def test_reshape_gives_all_blobs_their_shapes_without_computing() -> None:
    net = make_net(TWO_LOSSES)
    for name in net.inputs:
        net.blobs[name].reshape(9, *net.blobs[name].shape[1:])
    net.reshape()
    assert net.blobs["scores"].shape == (9, 2)


def test_forward_with_shapes_that_no_longer_fit_names_the_layer() -> None:
    net = make_net(TWO_LOSSES)
    net.blobs["x"].reshape(4, 8)
    with pytest.raises(UserError, match=r'^net.prototxt:\d+: layer "ip1": '):
        net.forward()


def test_forward_with_a_label_out_of_range_names_layer_and_value() -> None:
    net = make_net(TWO_LOSSES)
    feed(net)
    net.blobs["label"].data[2] = 5
    with pytest.raises(UserError, match=r'^net.prototxt:\d+: layer "loss": labels must be 0 to 1 .* got 5'):
        net.forward()


def test_forward_counts_whole_passes_alone() -> None:
    net = make_net(TWO_LOSSES)
    feed(net)
    net.forward()
    net.forward(end=2)
    net.forward(start=3)
    assert net.context.random.pass_index == 2


def test_net_says_what_it_is_doing() -> None:
    recipe, activity = make_recipe(TWO_LOSSES), Activity()
    net = Net(recipe, make_net(TWO_LOSSES).context, activity)
    feed(net)
    net.forward()
    assert activity.doing == 'computing layer "aux"'
    net.backward()
    assert activity.doing == 'computing the gradient of layer "ip1"'


def test_net_that_reads_says_so(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "lmdb", [(b"0", encode_datum(np.zeros((1, 2, 2), np.uint8), 0))])
    data = f'data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 1 }}'
    recipe = make_recipe(f'layer {{ name: "images" type: "Data" top: "data" {data} }}')
    activity = Activity()
    net = Net(recipe, make_net(TWO_LOSSES).context, activity)
    net.forward()
    net.close()
    assert activity.doing == 'reading a batch for layer "images"'


def test_net_of_a_loss_without_a_top_makes_one_up() -> None:
    text = TWO_LOSSES.replace('top: "aux"', "")
    net = make_net(text)
    expected = compute(feed(net), params_of(net))
    assert net.outputs == ["loss"]
    assert "(automatic) aux" in net.blobs
    assert net.forward() == pytest.approx(expected["loss"] + AUX_WEIGHT * expected["aux"], rel=1e-5)


def test_net_of_a_loss_that_is_read_on_still_counts_it() -> None:
    weighted = TWO_LOSSES.replace('top: "loss" }', 'top: "loss" loss_weight: 1 }')
    text = weighted + 'layer { name: "twice" type: "Eltwise" bottom: "aux" bottom: "loss" top: "twice" }'
    net = make_net(text)
    expected = compute(feed(net), params_of(net))
    assert net.forward() == pytest.approx(expected["loss"] + AUX_WEIGHT * expected["aux"], rel=1e-5)
    net.clear_param_diffs()
    net.backward()
    np.testing.assert_allclose(net.params["ip1"][0].diff, expected["ip1"][0], rtol=1e-4, atol=1e-6)


def test_loss_weight_of_any_top_counts_the_sum_of_its_values() -> None:
    text = (
        inputs(x=(2, 3))
        + """
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" loss_weight: 2
          inner_product_param { num_output: 1 weight_filler { value: 1 } } }"""
    )
    net = make_net(text)
    net.blobs["x"].data[...] = [[1, 2, 3], [4, 5, 6]]
    assert net.forward() == 42
    net.backward()
    assert net.params["ip"][0].diff.tolist() == [[10, 14, 18]]
    assert net.params["ip"][1].diff.tolist() == [4]


def test_net_layer_with_a_phase_of_its_own_runs_in_it() -> None:
    text = inputs(x=(1, 100)) + 'layer { name: "drop" type: "Dropout" bottom: "x" top: "y" phase: TEST }'
    net = make_net(text)  # TRAIN
    net.blobs["x"].data[...] = 1
    net.forward()
    assert (net.blobs["y"].data == 1).all()


def test_share_params_with_lets_both_nets_see_one_memory() -> None:
    train, test = make_net(TWO_LOSSES), make_net(TWO_LOSSES, TEST, seed=2)
    test.share_params_with(train)
    train.params["ip1"][0].data[...] = 5
    assert (test.params["ip1"][0].data == 5).all()
    np.testing.assert_array_equal(test.params["ip2"][1].data, train.params["ip2"][1].data)


def test_share_params_with_another_net_names_what_differs_and_leaves_what_it_lacks() -> None:
    train = make_net(TWO_LOSSES)
    test = make_net(
        TWO_LOSSES.replace("num_output: 2", "num_output: 3").replace('"ip1"', '"own"'), TEST, seed=2
    )
    before = test.params["own"][0].data.copy()
    with pytest.raises(UserError) as caught:
        test.share_params_with(train)
    assert str(caught.value).endswith(
        'layer "ip2": params [(3, 5), (3,)] differ from [(2, 5), (2,)] of the net they are shared with'
    )
    np.testing.assert_array_equal(test.params["own"][0].data, before)


@pytest.mark.parametrize(
    ("layers", "problems"),
    [
        (  # shapes of two layers don't fit; what hangs on them is not reported
            """layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
            layer { name: "tanh" type: "TanH" bottom: "sum" top: "tanh" }
            layer { name: "conv" type: "Convolution" bottom: "b" top: "conv" }
            layer { name: "fine" type: "TanH" bottom: "a" top: "fine" }""",
            [r'net.prototxt:4: layer "sum": ', r'net.prototxt:6: layer "conv": '],
        ),
        (
            'layer { name: "ip" type: "InnerProduct" bottom: "a" top: "a" inner_product_param { num_output: 1 } }',
            [
                r'net.prototxt:4: layer "ip": can\'t work in place; give its top another name than its bottom "a"$'
            ],
        ),
        (
            'layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param {\n'
            '  num_output: 1 weight_filler { type: "xavierr" } } }',
            [r'net.prototxt:4: layer "ip": unknown filler "xavierr"; did you mean "xavier"\?'],
        ),
        (
            """layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 1 } }
            layer { name: "loss" type: "SoftmaxWithLoss" bottom: "a" bottom: "y" top: "loss" }""",
            [
                r'net.prototxt:5: layer "loss": bottom "y" can\'t get a gradient from SoftmaxWithLoss, but comes '
                r"from layers that learn; set propagate_down: false for it$"
            ],
        ),
        (
            """layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 9 } }
            layer { name: "acc" type: "Accuracy" bottom: "y" bottom: "c" top: "acc" loss_weight: 1 }""",
            [
                r'net.prototxt:5: layer "acc": Accuracy has no gradient, but what it reads is learned through it$',
                r'net.prototxt:5: layer "acc": bottom "y" can\'t get a gradient from Accuracy',
            ],
        ),
    ],
)
def test_net_that_cannot_be_set_up_names_every_mistake(layers: str, problems: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        make_net(f"{inputs(a=(2, 3), b=(2, 4), c=(2,))}\n{layers}")
    assert len(caught.value.problems) == len(problems), caught.value.problems
    for problem, pattern in zip(caught.value.problems, problems, strict=True):
        assert re.match(pattern, problem), problem


def test_net_with_propagate_down_false_is_not_asked_for_that_gradient() -> None:
    text = (
        inputs(a=(2, 3), label=(2,))
        + """
        layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 3 } }
        layer { name: "flat" type: "InnerProduct" bottom: "a" top: "z" inner_product_param { num_output: 1 } }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "z" top: "loss"
          propagate_down: true propagate_down: false }"""
    )
    net = make_net(text)
    needs = dict(zip(net.layer_names, net.needs, strict=True))
    assert needs["loss"].bottoms == [True, False]
    assert (needs["ip"].layer, needs["flat"].layer) == (True, False)


NOT_LEARNED_THROUGH = """
    layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 3 } }
    layer { name: "over" type: "Threshold" bottom: "y" top: "z" }
    layer { name: "metric" type: "EuclideanLoss" bottom: "z" bottom: "a" top: "m" }"""


@pytest.mark.parametrize(("head", "phase"), [("", TEST), ("force_backward: true\n", TRAIN)])
def test_net_that_may_never_run_backward_is_refused_when_it_does(head: str, phase: int) -> None:
    net = make_net(head + inputs(a=(2, 3)) + NOT_LEARNED_THROUGH, phase)
    net.forward()
    problem = 'layer "over": Threshold has no gradient, but what it reads is learned through it'
    with pytest.raises(UserError, match=problem):
        net.backward()


def test_net_with_params_written_out_for_some_of_a_layer_is_refused() -> None:
    layer = (
        'layer { name: "ip" type: "InnerProduct" bottom: "a" top: "y" inner_product_param { num_output: 1 } '
    )
    with pytest.raises(
        UserError, match='layer "ip": blobs must give all 2 params of the layer or none, got 1'
    ):
        make_net(inputs(a=(1, 1)) + layer + "blobs { shape { dim: 1 dim: 1 } data: 3 } }")
