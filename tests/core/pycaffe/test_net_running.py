from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.errors import UserError
from tests.core.pycaffe.conftest import GRADIENT, WEIGHTS, X, Y, Z

# -- forward and backward ---------------------------------------------------------------------------------------


def test_forward_takes_inputs_by_name_and_returns_views_of_the_outputs(net: caffe.Net) -> None:
    result = net.forward(["y"], x=X, z=Z)
    assert list(result) == ["loss", "y"]
    np.testing.assert_allclose(result["y"], Y, rtol=1e-6)
    assert result["loss"].shape == ()
    assert float(result["loss"]) == pytest.approx(((Y - Z) ** 2).sum() / 4, rel=1e-6)
    assert np.shares_memory(result["y"], net.blobs["y"].data)


def test_forward_reads_what_was_written_into_the_blobs(net: caffe.Net) -> None:
    net.blobs["x"].data[...], net.blobs["z"].data[...] = X, Z
    net.params["ip"][0].data.flat[1] = 4
    np.testing.assert_allclose(net.forward(blobs=["y"])["y"], Y + 2 * X[:, 1:2], rtol=1e-6)


def test_forward_to_a_layer_returns_its_tops_and_from_one_keeps_what_is_there(net: caffe.Net) -> None:
    net.blobs["x"].data[...], net.blobs["z"].data[...] = X, Z
    assert list(net.forward(end="ip")) == ["y"]
    net.blobs["y"].data[...] = Z  # so that the loss is 0
    assert float(net.forward(start="loss")["loss"]) == 0


def test_backward_returns_the_inputs_diffs(net: caffe.Net) -> None:
    net.forward(x=X, z=Z)
    result = net.backward(["y"])
    dy = (Y - Z) / 2
    assert list(result) == ["x", "z", "y"]
    np.testing.assert_allclose(result["y"], dy, rtol=1e-6)
    np.testing.assert_allclose(result["x"], dy @ WEIGHTS, rtol=1e-6)
    np.testing.assert_allclose(result["z"], -dy, rtol=1e-6)
    assert np.shares_memory(result["x"], net.blobs["x"].diff)


def test_backward_from_a_given_diff_and_to_a_layer(scoring_net: caffe.Net) -> None:
    net = scoring_net
    net.forward(x=0 * X, z=Z)
    slope = 1 - np.tanh(0.5) ** 2
    result = net.backward(tanh=[[3], [4]], end="tanh")
    assert list(result) == ["y"]
    np.testing.assert_allclose(result["y"], np.array([[3], [4]]) * slope, rtol=1e-5)
    np.testing.assert_allclose(net.backward(start="ip")["x"][1], 4 * slope * WEIGHTS[0], rtol=1e-5)


def test_backward_adds_to_the_params_diffs_until_they_are_cleared(net: caffe.Net) -> None:
    for times in (1, 2):
        net.forward(x=X, z=Z)
        net.backward()
        np.testing.assert_allclose(net.params["ip"][0].diff, times * GRADIENT, rtol=1e-5)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()


def test_inner_forward_and_backward_take_layers_by_number(net: caffe.Net) -> None:
    net.blobs["x"].data[...], net.blobs["z"].data[...] = X, Z
    assert net._forward(0, 3) == pytest.approx(((Y - Z) ** 2).sum() / 4, rel=1e-6)
    net._backward(3, 3)
    np.testing.assert_allclose(net.blobs["y"].diff, (Y - Z) / 2, rtol=1e-6)
    assert not net.params["ip"][0].diff.any()


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda net: net.forward(x=X), "forward: the inputs must be x, z, got x"),
        (lambda net: net.forward(x=X, y=Z), "forward: the inputs must be x, z, got x, y"),
        (
            lambda net: net.forward(x=X[:1], z=Z),
            'forward: the inputs: "x" must have the shape of its blob, (2, 3), got (1, 3); to change the '
            "blob's: net.blobs[name].reshape(…), net.reshape()",
        ),
        (
            lambda net: net.forward(x=X[:, :2], z=Z),
            'forward: the inputs: "x" must have the shape of its blob, (2, 3), got (2, 2); to change the '
            "blob's: net.blobs[name].reshape(…), net.reshape()",
        ),
        (
            lambda net: net.forward(end="loos"),
            'the net has no layer "loos"; did you mean "loss"?; it has x, z, ip, loss',
        ),
        (lambda net: net.forward(["w"]), 'the net has no blob "w"; it has x, z, y, loss'),
        (lambda net: net.backward(start="w"), 'the net has no layer "w"; it has x, z, ip, loss'),
        (lambda net: net.backward(["w"]), 'the net has no blob "w"; it has x, z, y, loss'),
        (lambda net: net.backward(w=1), "backward: the diffs must be loss, got w"),
        (lambda net: net.forward_all(x=X), "forward_all: the inputs must be x, z, got x"),
        (
            lambda net: net.forward_all(x=X, z=Z[:1]),
            "all arrays must have as many items along their first axis, got x (2, 3), z (1, 1)",
        ),
        (
            lambda net: net.forward_backward_all(),
            "forward_backward_all: arrays must be given to go through, got none; forward() runs a single batch",
        ),
    ],
)
def test_net_asked_for_what_it_has_not_says_so(
    net: caffe.Net, call: Callable[[caffe.Net], object], problem: str
) -> None:
    with pytest.raises(UserError) as caught:
        call(net)
    assert str(caught.value) == problem


def test_reshape_follows_an_input(net: caffe.Net) -> None:
    net.blobs["x"].reshape(5, 3)
    net.blobs["z"].reshape(5, 1)
    net.reshape()
    assert net.blobs["y"].shape == (5, 1)
    assert net.forward(["y"])["y"].shape == (5, 1)
    assert net.forward(x=np.ones((5, 3)), z=np.ones((5, 1)))["loss"].shape == ()


# -- many items -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_items", [0, 1, 2, 5])
def test_forward_all_gives_what_the_outputs_are_for_each_item(scoring_net: caffe.Net, num_items: int) -> None:
    x = np.arange(3.0 * num_items).reshape(-1, 3) / 10
    result = scoring_net.forward_all(blobs=["y"], x=x, z=np.zeros((num_items, 1)))
    y = x @ WEIGHTS.T + 0.5
    assert list(result) == ["tanh", "y"]
    np.testing.assert_allclose(result["y"], y, rtol=1e-6)
    np.testing.assert_allclose(result["tanh"], np.tanh(y), rtol=1e-5)


def test_forward_all_gives_one_number_a_batch_for_outputs_without_items(net: caffe.Net) -> None:
    """The last batch is filled up with zeros, of which the loss knows nothing."""
    x, z = np.concatenate([X, X[:1]]), np.concatenate([Z, Z[:1]])
    losses = net.forward_all(x=x, z=z)["loss"]
    padded = (Y[0] - Z[0]) ** 2 + 0.5**2  # the zeros give y = 0.5, z = 0
    np.testing.assert_allclose(losses, [((Y - Z) ** 2).sum() / 4, padded[0] / 4], rtol=1e-6)


def test_forward_backward_all_gives_data_and_diffs_for_each_item(scoring_net: caffe.Net) -> None:
    x, top_diffs = np.arange(9.0).reshape(3, 3) / 100, np.array([[1.0], [2], [3]])
    datas, diffs = scoring_net.forward_backward_all(x=x, z=np.zeros((3, 1)), tanh=top_diffs, diffs=["y"])
    tanh = np.tanh(x @ WEIGHTS.T + 0.5)
    np.testing.assert_allclose(datas["tanh"], tanh, rtol=1e-5)
    np.testing.assert_allclose(diffs["y"], top_diffs * (1 - tanh**2), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(diffs["x"], top_diffs * (1 - tanh**2) @ WEIGHTS, rtol=1e-4, atol=1e-7)
    assert sorted(diffs) == ["x", "y", "z"]


def test_forward_backward_all_without_top_diffs_begins_at_those_of_the_blobs(net: caffe.Net) -> None:
    _, diffs = net.forward_backward_all(x=X, z=Z)
    np.testing.assert_allclose(diffs["z"], (Z - Y) / 2, rtol=1e-5)


def test_net_whose_first_blob_has_no_items_cannot_be_fed_in_batches(tmp_path: Path) -> None:
    path = tmp_path / "scalar.prototxt"
    path.write_text('layer { name: "x" type: "Input" top: "x" input_param { shape { } } }')
    net = caffe.Net(path, caffe.TEST)
    with pytest.raises(
        UserError, match=r"the net's first blob must have items to be fed in batches, got shape \(\)"
    ):
        net.forward_all(x=np.zeros(3))
