"""Training that keeps few blobs and computes the others again: the same bits, in less memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary, UserError
from dtrain.core.layers.layer import FusedLayers
from dtrain.core.net.fusion import Group
from dtrain.core.net.memory_sharing import find_net_again, share_memory
from dtrain.core.net.net import Net
from dtrain.core.net.recomputation import let_go, run_again
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.single import SingleCommunicator
from tests.core.conftest import WriteModule
from tests.core.net_builder import inputs, make_net
from tests.core.solver.small_runs import write_database

Array = NDArray[Any]

HALVE = """
import dtrain as caffe
class Halve(caffe.Layer):
    num_passes = 0
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        Halve.num_passes += 1
        top[0].data[...] = 0.5 * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 0.5 * top[0].diff
"""


def layer(name: str, kind: str, bottoms: str, top: str, more: str = "") -> str:
    """Return a layer; bottoms are names with spaces between them."""
    given = " ".join(f'bottom: "{bottom}"' for bottom in bottoms.split())
    return f'layer {{ name: "{name}" type: "{kind}" {given} top: "{top}" {more} }}\n'


def convolution(name: str, bottom: str, top: str) -> str:
    window = 'num_output: 16 kernel_size: 3 pad: 1 weight_filler { type: "msra" }'
    return layer(name, "Convolution", bottom, top, f"convolution_param {{ {window} }}")


def normalised(bottom: str, top: str) -> str:
    """Return convolution, BatchNorm and Scale, in place."""
    return (
        convolution(top, bottom, top)
        + layer(f"{top}_norm", "BatchNorm", top, top)
        + layer(f"{top}_scale", "Scale", top, top, "scale_param { bias_term: true }")
    )


def residual(bottom: str, top: str) -> str:
    """Return a block of two convolutions and a shortcut, with in-place ReLUs."""
    return (
        normalised(bottom, f"{top}_a")
        + layer(f"{top}_a_relu", "ReLU", f"{top}_a", f"{top}_a")
        + normalised(f"{top}_a", f"{top}_b")
        + layer(top, "Eltwise", f"{bottom} {top}_b", top)
        + layer(f"{top}_relu", "ReLU", top, top)
    )


def inner_product(name: str, bottom: str, num_output: int) -> str:
    filler = 'weight_filler { type: "xavier" }'
    return layer(
        name, "InnerProduct", bottom, name, f"inner_product_param {{ num_output: {num_output} {filler} }}"
    )


STEM = normalised("data", "stem") + layer("stem_relu", "ReLU", "stem", "stem")
DEEP = (
    STEM
    + "".join(residual(f"b{k}" if k else "stem", f"b{k + 1}") for k in range(6))
    + layer("drawn", "Pooling", "b6", "drawn", "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }")
    + layer("drop", "Dropout", "drawn", "drop", "dropout_param { dropout_ratio: 0.3 }")
    + layer("norm", "LRN", "drop", "norm")
    + residual("norm", "c1")
    + layer("half", "Python", "c1", "half", 'python_param { module: "halve" layer: "Halve" }')
    + convolution("after", "half", "after")
    + layer("after_drop", "Dropout", "after", "after")
    + layer("flat", "Flatten", "after", "flat")
    + inner_product("ip1", "flat", 40)
    + layer("ip1_relu", "ReLU", "ip1", "ip1")
    + layer("ip1_drop", "Dropout", "ip1", "ip1")
    + inner_product("ip2", "ip1", 4)
    + layer("loss", "SoftmaxWithLoss", "ip2 label", "loss")
)
DATA = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{database}" backend: LMDB batch_size: 6 }} transform_param {{ scale: 0.01 }} }}
"""
SOLVER = """net: "{folder}/net.prototxt" base_lr: 0.001 momentum: 0.9 lr_policy: "fixed" max_iter: 5 iter_size: 2
random_seed: 7 display: 1 test_iter: 2 test_interval: 2 test_initialization: false
snapshot_after_train: false
"""


@pytest.fixture(params=["reference", "onednn"])
def make_solver(
    request: pytest.FixtureRequest, tmp_path: Path, write_module: WriteModule
) -> Callable[[], Solver]:
    """Return a function that makes the solver of DEEP."""
    try:
        engine = create_engine(request.param)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    write_module("halve", HALVE)
    write_database(tmp_path / "lmdb")
    (tmp_path / "net.prototxt").write_text(DATA.format(database=tmp_path / "lmdb") + DEEP)
    path = tmp_path / "solver.prototxt"
    path.write_text(SOLVER.format(folder=tmp_path))
    return lambda: Solver(read_recipe(str(path)), engine=engine, communicator=SingleCommunicator())


@pytest.mark.parametrize("fuses", [False, True])
def test_recomputation_in_a_run_gives_the_same_bits_in_less_memory(
    make_solver: Callable[[], Solver], spoiled: None, fuses: bool
) -> None:
    runs, peaks = [], []
    for recomputes in (False, True):
        solver = make_solver()
        if fuses:
            solver.fuse()
        pool = share_memory([solver.net, *solver.test_nets], recomputes)
        losses: list[float] = []
        solver.net.callbacks.done_forward.append(
            lambda i, net=solver.net, losses=losses: (  # type: ignore[misc]
                losses.append(float(net.blobs["loss"].data)) if i == len(net.layers) - 1 else None
            )
        )
        solver.solve()
        scores = solver.test_all()
        runs.append([losses, scores, [param.blob.data.copy() for param in solver.net.learnable_params]])
        peaks.append(pool.peak_bytes)
        solver.close()
    (losses, scores, params), (losses_again, scores_again, params_again) = runs
    assert len(losses) == 5 * 2 + 1
    assert losses_again == losses
    assert scores_again == scores
    for expected, actual in zip(params, params_again, strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert peaks[1] < 0.7 * peaks[0]


def names_again(net: Net) -> set[str]:
    return {net.layer_names[i] for layers in find_net_again(net).values() for i in layers}


def test_find_again_takes_layers_that_give_the_same_twice(make_solver: Callable[[], Solver]) -> None:
    solver = make_solver()
    again = find_net_again(solver.net)
    names = names_again(solver.net)
    assert {"stem", "b1_a_norm", "b2_a_relu"} <= names
    assert names.isdisjoint({"data", "half", "loss"})
    for before, layers in again.items():
        assert list(layers) == sorted(layers)
        assert layers[-1] <= before
    assert find_net_again(solver.test_nets[0]) == {}
    solver.close()


def test_a_python_layer_runs_once_in_each_pass(make_solver: Callable[[], Solver]) -> None:
    solver = make_solver()
    share_memory([solver.net], recomputes=True)
    user = solver.net.layers[solver.net.layer_names.index("half")].users_layer  # type: ignore[attr-defined]
    type(user).num_passes = 0
    solver.step(3)
    solver.close()
    assert type(user).num_passes == 3 * 2 + 2, "three iterations of two passes, and a test of two batches"


def chain(prefix: str, bottom: str, length: int) -> str:
    """Return TanH layers in a row; the last one's top is called `prefix`."""
    names = [bottom, *(f"{prefix}{k}" for k in range(length - 1)), prefix]
    return "".join(layer(top, "TanH", below, top) for below, top in zip(names, names[1:], strict=False))


def test_find_again_leaves_out_layers_that_carry_a_state_or_ask_other_ranks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = make_net(
        inputs(x=(3, 4, 6), cont=(3, 4), t=(3, 4, 6))
        + layer("ip", "InnerProduct", "x", "ip", "inner_product_param { num_output: 6 axis: 2 }")
        + chain("first", "ip", 9)
        + layer("lstm", "LSTM", "first cont", "lstm", "recurrent_param { num_output: 6 }")
        + layer("norm", "BatchNorm", "lstm", "norm")
        + chain("second", "norm", 9)
        + layer("loss", "EuclideanLoss", "second t", "loss")
    )
    assert "norm" in names_again(net)
    monkeypatch.setattr(net.layers[net.layer_names.index("norm")], "synchronised", object())
    names = names_again(net)
    assert any(name.startswith("first") for name in names)
    assert names.isdisjoint({"lstm", "norm", "loss"})


def test_recomputation_makes_reading_between_the_passes_an_error() -> None:
    text = inputs(x=(4, 8), t=(4, 8)) + inner_product("ip", "x", 8) + chain("y", "ip", 16)
    net = make_net(text + layer("loss", "EuclideanLoss", "y t", "loss"))
    share_memory([net], recomputes=True)
    again = min(min(layers) for layers in find_net_again(net).values())
    name = net.top_names[again][0]
    net.forward()
    with pytest.raises(UserError, match=f'^data of blob "{name}": values must be read before'):
        net.blobs[name].read_data()
    net.backward()


RANDOM = (
    inputs(x=(6, 2, 3, 3))
    + layer("norm", "BatchNorm", "x", "norm")
    + layer("drop", "Dropout", "norm", "drop")
    + layer("double", "Power", "drop", "double", "power_param { scale: 2 }")
)


def run_random(net: Net) -> Array:
    net.blobs["x"].write_data()[...] = np.random.default_rng(3).standard_normal((6, 2, 3, 3))
    net.forward()
    return net.blobs["double"].data.copy()


def test_run_again_gives_what_the_pass_gave_and_leaves_statistics_and_passes_as_they_were() -> None:
    net = make_net(RANDOM)
    first, second = run_random(net), run_random(net)
    assert not np.array_equal(first, second), "each pass drops others"
    sums = [blob.data.copy() for blob in net.params["norm"]]
    done: list[int] = []
    for pass_index, expected in ((0, first), (1, second)):
        net.blobs["double"].write_data()[...] = np.nan
        run_again(net, [1, 2, 3], pass_index, done.append)
        np.testing.assert_array_equal(net.blobs["double"].data, expected)
    assert done == [1, 2, 3] * 2
    assert net.context.random.pass_index == 2
    for blob, expected in zip(net.params["norm"], sums, strict=True):
        np.testing.assert_array_equal(blob.data, expected)


class Recorder(FusedLayers):
    """Counts how often it is told to let go."""

    def __init__(self) -> None:
        self.num_calls = 0

    def forward(self, bottom: Any, top: Any) -> None:
        """Do nothing."""

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Do nothing."""

    def let_go(self) -> None:
        """Count."""
        self.num_calls += 1


def test_let_go_tells_the_layer_or_once_those_that_run_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    net = make_net(RANDOM)
    recorder, told = Recorder(), []
    for i, each in enumerate(net.layers):
        monkeypatch.setattr(each, "let_go", lambda i=i: told.append(i))
    net.groups.update(dict.fromkeys((1, 2), Group(1, 2, recorder, ((1, 0),))))
    for i in (1, 2, 3):
        let_go(net, i)
    assert recorder.num_calls == 1
    assert told == [3]


def test_find_again_takes_layers_that_run_as_one_together() -> None:
    text = inputs(x=(4, 8), t=(4, 8)) + inner_product("ip", "x", 8) + chain("y", "ip", 30)
    net = make_net(text + layer("loss", "EuclideanLoss", "y t", "loss"))
    first = net.layer_names.index("ip")
    for i in range(first, first + 30, 3):
        net.groups.update(dict.fromkeys(range(i, i + 3), Group(i, i + 2, Recorder(), ((i, 0),))))
    again = find_net_again(net)
    layers = {i for some in again.values() for i in some}
    assert layers
    for i in range(first, first + 30, 3):
        assert len(layers & set(range(i, i + 3))) in (0, 3)
        assert not {i, i + 1} & set(again), "and no segment ends between them"
