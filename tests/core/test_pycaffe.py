from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core import pycaffe as caffe
from dtrain.core.errors import UserError
from tests.core.net_builder import inputs

NET = (
    'name: "two"\nforce_backward: true\n'
    + inputs(x=(2, 3), z=(2, 1))
    + """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 weight_filler { type: "gaussian" } bias_filler { value: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "z" top: "loss" include { phase: TRAIN } }
layer { name: "tanh" type: "TanH" bottom: "y" top: "tanh" include { phase: TEST } }
layer { name: "silence" type: "Silence" bottom: "z" include { phase: TEST } }
layer { name: "deep" type: "TanH" bottom: "tanh" top: "deep" include { stage: "deep" min_level: 2 } }
"""
)
X, Z = np.array([[1.0, 2, 3], [-1, 0, 1]]), np.array([[0.25], [1]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with net.prototxt and solver.prototxt."""
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3 random_seed: 1 snapshot_prefix: "s"\n'
        "test_iter: 1 test_interval: 100 test_initialization: false"
    )
    return tmp_path


@pytest.fixture
def net(folder: Path) -> caffe.Net:
    """Return the net in TRAIN with weights 1, 2, 3."""
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.params["ip"][0].data[...] = [[1, 2, 3]]
    return net


Y = X @ [[1], [2], [3]] + 0.5


def test_net_has_blobs_params_inputs_and_outputs(net: caffe.Net) -> None:
    assert list(net.blobs) == ["x", "z", "y", "loss"]
    assert [blob.shape for blob in net.params["ip"]] == [(1, 3), (1,)]
    assert (net.inputs, net.outputs) == (["x", "z"], ["loss"])


@pytest.mark.parametrize(
    ("level", "stages", "outputs"), [(0, None, ["tanh"]), (2, ["deep"], ["deep"]), (1, ["deep"], ["tanh"])]
)
def test_net_of_a_level_and_stages_has_their_layers(
    folder: Path, level: int, stages: list[str] | None, outputs: list[str]
) -> None:
    assert caffe.Net("net.prototxt", caffe.TEST, level, stages).outputs == outputs


def test_forward_takes_inputs_by_name_and_returns_views_of_the_outputs(net: caffe.Net) -> None:
    result = net.forward(["y"], x=X, z=Z)
    assert list(result) == ["loss", "y"]
    np.testing.assert_allclose(result["y"], Y, rtol=1e-6)
    assert float(result["loss"]) == pytest.approx(((Y - Z) ** 2).sum() / 4, rel=1e-6)
    assert np.shares_memory(result["y"], net.blobs["y"].data)


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
    np.testing.assert_allclose(result["x"], dy @ [[1, 2, 3]], rtol=1e-6)
    np.testing.assert_allclose(result["z"], -dy, rtol=1e-6)


def test_backward_from_a_given_diff_and_to_a_layer(folder: Path) -> None:
    net = caffe.Net("net.prototxt", caffe.TEST)
    net.params["ip"][0].data[...] = [[1, 2, 3]]
    net.forward(x=0 * X, z=Z)
    slope = 1 - np.tanh(0.5) ** 2
    result = net.backward(tanh=[[3], [4]], end="tanh")
    assert list(result) == ["y"]
    np.testing.assert_allclose(result["y"], np.array([[3], [4]]) * slope, rtol=1e-5)
    np.testing.assert_allclose(net.backward(start="ip")["x"][1], 4 * slope * np.array([1, 2, 3]), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda net: net.forward(x=X), "forward: inputs must be x, z, got x"),
        (lambda net: net.forward(x=X, y=Z), "forward: inputs must be x, z, got x, y"),
        (
            lambda net: net.forward(x=X[:1], z=Z),
            'forward: input "x" must have batch size (2,), got (1,)',
        ),
        (
            lambda net: net.forward(end="loos"),
            'the net has no layer "loos"; did you mean "loss"?; it has x, z, ip, loss',
        ),
        (lambda net: net.forward(["w"]), 'the net has no blob "w"; it has x, z, y, loss'),
        (lambda net: net.backward(start="w"), 'the net has no layer "w"; it has x, z, ip, loss'),
        (lambda net: net.backward(w=1), 'the net has no blob "w"; it has x, z, y, loss'),
    ],
)
def test_net_asked_for_what_it_has_not_says_so(net: caffe.Net, call: object, problem: str) -> None:
    with pytest.raises(UserError) as caught:
        call(net)  # type: ignore[operator]
    assert str(caught.value) == problem


def test_reshape_follows_an_input(net: caffe.Net) -> None:
    net.blobs["x"].reshape(5, 3)
    net.blobs["z"].reshape(5, 1)
    net.reshape()
    assert net.blobs["y"].shape == (5, 1)
    assert net.forward(["y"])["y"].shape == (5, 1)


@pytest.mark.parametrize("form", ["keyword", "old", "copy_from"])
def test_save_writes_weights_that_a_net_takes_in(net: caffe.Net, form: str) -> None:
    net.save("w.caffemodel")
    if form == "keyword":
        other = caffe.Net("net.prototxt", caffe.TEST, weights="w.caffemodel")
    elif form == "old":
        other = caffe.Net("net.prototxt", "w.caffemodel", caffe.TEST)
    else:
        other = caffe.Net("net.prototxt", caffe.TEST)
        other.copy_from("w.caffemodel")
    assert other.params["ip"][0].data.tolist() == [[1, 2, 3]]
    assert other.outputs == ["tanh"]


def test_set_random_seed_decides_what_fillers_draw(folder: Path) -> None:
    weights = []
    for seed in (4, 5, 4, 0):
        caffe.set_random_seed(seed)
        weights.append(caffe.Net("net.prototxt", caffe.TRAIN).params["ip"][0].data.tolist())
    assert weights[0] == weights[2]
    assert weights[0] != weights[1]


def test_get_solver_steps_and_updates(folder: Path) -> None:
    solver = caffe.get_solver("solver.prototxt")
    net = solver.net
    net.params["ip"][0].data[...] = [[1, 2, 3]]
    net.blobs["x"].data[...], net.blobs["z"].data[...] = X, Z
    solver.step(1)
    assert solver.iter == 1
    gradient = ((Y - Z) / 2).T @ X
    np.testing.assert_allclose(net.params["ip"][0].data, [[1, 2, 3]] - 0.1 * gradient, rtol=1e-5)
    assert solver.test_nets[0].params["ip"][0].data.tolist() == net.params["ip"][0].data.tolist()


def test_solver_snapshots_and_goes_on(folder: Path) -> None:
    solver = caffe.get_solver("solver.prototxt")
    solver.step(2)
    solver.snapshot()
    weights = solver.net.params["ip"][0].data.copy()
    other = caffe.get_solver("solver.prototxt")
    other.restore("s_iter_2.solverstate")
    assert other.iter == 2
    np.testing.assert_array_equal(other.net.params["ip"][0].data, weights)
    other.solve()
    assert other.iter == 3
    third = caffe.SGDSolver("solver.prototxt")
    third.solve("s_iter_2.solverstate")
    assert third.iter == 3
    np.testing.assert_array_equal(third.net.params["ip"][0].data, other.net.params["ip"][0].data)


def test_mistakes_are_python_exceptions(folder: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        caffe.Net("none.prototxt", caffe.TEST)
    with pytest.raises(UserError, match="no such file"):
        caffe.get_solver("none.prototxt")


def test_type_lists_hold_what_a_prototxt_may_name() -> None:
    caffe.set_mode_cpu()
    assert {"Convolution", "Data", "SoftmaxWithLoss"} <= set(caffe.layer_type_list())
    assert "SGD" in caffe.solver_type_list()
