from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.errors import UserError
from dtrain.core.net.net import Net
from dtrain.core.snapshots import LayerRecord, write_caffemodel
from dtrain.core.solver.nets import load_into, make_nets, params_of_tests_alone
from dtrain.core.solver.recipe import read_recipe
from dtrain.dist.activity import Activity
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure
from dtrain.dist.single import SingleCommunicator
from dtrain.proto import caffe_pb2
from tests.core.solver.ranks import SEVERAL, OnRanks, is_first, shared_path, wait_for_all

NET = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
  num_output: 4 bias_term: false weight_filler { type: "gaussian" } } }
layer { name: "extra" type: "InnerProduct" bottom: "y" top: "z" include { phase: TEST } inner_product_param {
  num_output: 5 bias_term: false weight_filler { type: "gaussian" } } }
layer { name: "aside" type: "InnerProduct" bottom: "y" top: "a" include { phase: TRAIN } inner_product_param {
  num_output: 2 bias_term: false weight_filler { type: "gaussian" } } }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a solver of two test nets."""
    folder = shared_path(tmp_path)
    if is_first():
        (folder / "net.prototxt").write_text(NET)
        (folder / "solver.prototxt").write_text(
            'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" test_interval: 1 test_iter: [1, 1]'
        )
    wait_for_all()
    return folder


def make(folder: Path, communicator: Communicator) -> tuple[Net, list[Net]]:
    recipe = read_recipe(str(folder / "solver.prototxt"))
    return make_nets(recipe, create_engine("reference"), communicator, 3, Activity())


def write_weights(path: Path, **values: np.ndarray) -> str:
    layers = [
        LayerRecord(caffe_pb2.LayerParameter(name=name, type="InnerProduct"), [value.astype(np.float32)])
        for name, value in values.items()
    ]
    if is_first():
        write_caffemodel(path, "n", layers)
    wait_for_all()
    return str(path)


def weight_of(net: Net, layer: str) -> np.ndarray:
    return net.params[layer][0].data


def test_make_nets_lets_tests_share_the_params_that_the_train_net_has(folder: Path) -> None:
    train, tests = make(folder, SingleCommunicator())
    assert [list(net.params) for net in (train, *tests)] == [
        ["ip", "aside"],
        ["ip", "extra"],
        ["ip", "extra"],
    ]
    weight_of(train, "ip")[...] = 7
    assert all((weight_of(net, "ip") == 7).all() for net in tests)
    assert [(p.layer_name, p.index) for p in params_of_tests_alone(train, tests)] == [("extra", 0)] * 2


@pytest.mark.parametrize("world_size", [1, SEVERAL])
def test_load_into_gives_test_nets_the_weights_of_layers_that_they_alone_have(
    folder: Path, world_size: int, on_ranks: OnRanks
) -> None:
    first = write_weights(folder / "first.caffemodel", ip=np.full((4, 3), 1.0), extra=np.full((5, 4), 2.0))
    second = write_weights(folder / "second.caffemodel", ip=np.full((4, 3), 3.0), other=np.ones((2, 2)))

    def body(communicator: Communicator) -> list[set[float]]:
        train, tests = make(folder, communicator)
        aside = weight_of(train, "aside").copy()
        load_into(train, tests, [first, second], communicator)
        np.testing.assert_array_equal(weight_of(train, "aside"), aside)
        return [set(weight_of(net, "extra").ravel().tolist()) for net in tests]

    assert on_ranks(world_size, body) == [[{2.0}, {2.0}]] * world_size


def test_load_into_of_what_fits_no_test_net_is_refused(folder: Path, on_ranks: OnRanks) -> None:
    path = write_weights(folder / "x.caffemodel", extra=np.ones((5, 5)))

    def body(communicator: Communicator) -> str:
        train, tests = make(folder, communicator)
        with pytest.raises((UserError, AgreedFailure)) as caught:
            load_into(train, tests, [path], communicator)
        return str(caught.value)

    for message in on_ranks(SEVERAL, body):
        assert 'param 0 of layer "extra" must be (5, 4) as in this net, got (5, 5)' in message


def test_make_nets_with_mistakes_in_several_names_them_all(folder: Path) -> None:
    text = (folder / "net.prototxt").read_text()
    shapes = 'layer { name: "%s" type: "Eltwise" bottom: "x" bottom: "y" top: "%s" include { phase: %s } }\n'
    (folder / "net.prototxt").write_text(
        text + shapes % ("one", "s", "TRAIN") + shapes % ("two", "s", "TEST")
    )
    with pytest.raises(UserError) as caught:
        make(folder, SingleCommunicator())
    assert len(caught.value.problems) == 2
    assert 'layer "one"' in caught.value.problems[0]
    assert 'layer "two"' in caught.value.problems[1]
