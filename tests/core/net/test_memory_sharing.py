"""Nets whose blobs share memory: the same bits as nets that keep all, and an error for who looks too late.

Whatever is lent or given back is filled with NaN here (conftest.py), so that a value read too late can't pass for the
right one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines import create_engine
from dtrain.core.errors import MissingLibrary, UserError
from dtrain.core.net.memory_sharing import find_net_lifetimes, share_memory
from dtrain.core.net.net import Net
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.core.tensor import HOST
from dtrain.dist.single import SingleCommunicator
from tests.core.conftest import WriteModule
from tests.core.net_builder import TEST, inputs, make_net
from tests.core.solver.small_runs import write_database

DOUBLE = """
import dtrain as caffe
class Double(caffe.Layer):
    def setup(self, bottom, top):
        pass
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data
        self.seen = bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff * (self.seen == bottom[0].data)
"""

# Splits, views, branches, layers in place, a loss in the middle, what is silenced, a user's layer, a constant.
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  data_param {{ source: "{database}" backend: LMDB batch_size: 6 }} transform_param {{ scale: 0.01 }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  data_param {{ source: "{database}" backend: LMDB batch_size: 10 }} transform_param {{ scale: 0.01 }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "a"
  convolution_param {{ num_output: 16 kernel_size: 3 pad: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "a" top: "a" }}
layer {{ name: "scale" type: "Scale" bottom: "a" top: "a" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "a" top: "a" }}
layer {{ name: "pool" type: "Pooling" bottom: "a" top: "p" pooling_param {{ kernel_size: 2 stride: 2 }} }}
layer {{ name: "lrn" type: "LRN" bottom: "p" top: "n" }}
layer {{ name: "left" type: "Convolution" bottom: "n" top: "left"
  convolution_param {{ num_output: 16 kernel_size: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "right" type: "Convolution" bottom: "n" top: "right"
  convolution_param {{ num_output: 16 kernel_size: 3 pad: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "sigmoid" type: "Sigmoid" bottom: "right" top: "s" }}
layer {{ name: "sum" type: "Eltwise" bottom: "left" bottom: "s" bottom: "n" top: "sum" }}
layer {{ name: "cat" type: "Concat" bottom: "sum" bottom: "p" top: "cat" }}
layer {{ name: "cut" type: "Slice" bottom: "cat" top: "c0" top: "c1" slice_param {{ slice_point: 20 }} }}
layer {{ name: "silence" type: "Silence" bottom: "c1" }}
layer {{ name: "user" type: "Python" bottom: "c0" top: "u" python_param {{ module: "double" layer: "Double" }} }}
layer {{ name: "flat" type: "Flatten" bottom: "u" top: "flat" }}
layer {{ name: "shape" type: "Reshape" bottom: "flat" top: "f" reshape_param {{ shape {{ dim: 0 dim: -1 }} }} }}
layer {{ name: "drop" type: "Dropout" bottom: "f" top: "f" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "f" top: "ip" inner_product_param {{ num_output: 4
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "constant" type: "DummyData" top: "three" dummy_data_param {{ shape {{ dim: 4 }}
  data_filler {{ type: "constant" value: 3 }} }} }}
layer {{ name: "shift" type: "Bias" bottom: "ip" bottom: "three" top: "scores" bias_param {{ axis: 1 }} }}
layer {{ name: "middle" type: "InnerProduct" bottom: "n" top: "m" inner_product_param {{ num_output: 4
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "middle_loss" type: "SoftmaxWithLoss" bottom: "m" bottom: "label" top: "middle_loss"
  loss_weight: 0.3 }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "scores" bottom: "label" top: "accuracy"
  include {{ phase: TEST }} }}
"""
SOLVER = """net: "{folder}/net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" max_iter: 5 iter_size: 2
random_seed: 7 display: 2 test_iter: 2 test_interval: 2 snapshot_after_train: false {more}
"""

Array = NDArray[Any]


@pytest.fixture(params=["reference", "onednn"])
def make_solver(
    request: pytest.FixtureRequest, tmp_path: Path, write_module: WriteModule
) -> Callable[..., Solver]:
    """Return a function that makes the solver of NET, with more fields if given."""
    try:
        engine = create_engine(request.param)
    except MissingLibrary:
        pytest.skip("oneDNN is not installed")
    write_module("double", DOUBLE)
    write_database(tmp_path / "lmdb")
    (tmp_path / "net.prototxt").write_text(NET.format(database=tmp_path / "lmdb"))

    def make(more: str = "") -> Solver:
        path = tmp_path / "solver.prototxt"
        path.write_text(SOLVER.format(folder=tmp_path, more=more))
        return Solver(read_recipe(str(path)), engine=engine, communicator=SingleCommunicator())

    return make


def train(solver: Solver) -> tuple[list[Array], list[Any]]:
    """Return all params after the run, and what it has shown."""
    scores = solver.test_all()
    solver.solve()
    scores += solver.test_all()
    losses = [float(solver.net.blobs[name].data) for name in ("loss", "middle_loss")]
    solver.close()
    return [param.blob.data.copy() for param in solver.net.learnable_params], [scores, losses]


@pytest.mark.parametrize("fuses", [False, True])
def test_share_memory_in_a_run_gives_the_same_bits(
    make_solver: Callable[..., Solver], spoiled: None, fuses: bool
) -> None:
    runs = []
    for shares in (False, True):
        solver = make_solver()
        if fuses:
            solver.fuse()
        if shares:
            pool = share_memory([solver.net, *solver.test_nets])
        runs.append(train(solver))
    (kept, kept_scores), (shared, shared_scores) = runs
    assert shared_scores == kept_scores
    for expected, actual in zip(kept, shared, strict=True):
        np.testing.assert_array_equal(actual, expected)
    for param in solver.net.learnable_params:
        param.blob.data_tensor.storage.drop_layouts()  # which the last test has made
    assert pool.lent_bytes == 0, "all blobs have given back what they had"
    assert pool.peak_bytes > 0


def test_share_memory_with_debug_info_logs_the_same_sizes(
    make_solver: Callable[..., Solver], spoiled: None, caplog: pytest.LogCaptureFixture
) -> None:
    logged = []
    for shares in (False, True):
        caplog.clear()
        solver = make_solver("debug_info: true")
        if shares:
            share_memory([solver.net, *solver.test_nets])
        with caplog.at_level(logging.INFO):
            train(solver)
        logged.append([line for line in caplog.messages if line.startswith("    [")])
    assert len(logged[0]) > 100
    assert logged[1] == logged[0]


def test_share_memory_takes_what_is_alive_at_once_and_not_all(make_solver: Callable[..., Solver]) -> None:
    solver = make_solver()
    values = find_net_lifetimes(solver.net).values
    tensors = [
        getattr(solver.net.blobs[v.blob], "diff_tensor" if v.is_diff else "data_tensor") for v in values
    ]
    together = 4 * sum(storage.capacity for storage in {id(t.storage): t.storage for t in tensors}.values())
    pool = share_memory([solver.net])
    solver.step(2)
    solver.close()
    assert pool.peak_bytes < 0.75 * together


def test_share_memory_keeps_weights_in_one_place_behind_backward(make_solver: Callable[..., Solver]) -> None:
    solver = make_solver()
    share_memory([solver.net])
    solver.step(2)
    for param in solver.net.learnable_params:
        assert list(param.blob.data_tensor.storage.copies) == [HOST]
    solver.net.forward()  # leaves copies that backward would read
    share_memory([solver.net])
    for param in solver.net.learnable_params:
        assert list(param.blob.data_tensor.storage.copies) == [HOST]
    solver.step(1)
    solver.close()


def test_share_memory_keeps_a_rounded_weight_for_the_backward_that_rounds_it_too() -> None:
    try:
        engine = create_engine("onednn", "BF16")
    except (MissingLibrary, UserError):
        pytest.skip("nets can't be computed in bf16 here")
    kernels = 'convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "xavier" } }'
    text = inputs(x=(2, 16, 8, 8), t=(2, 32, 4, 4))
    text += f'layer {{ name: "a" type: "Convolution" bottom: "x" top: "a" {kernels} }}'
    text += f'layer {{ name: "b" type: "Convolution" bottom: "a" top: "b" {kernels} }}'
    text += 'layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "t" top: "loss" }'
    kept, shared = make_net(text, engine=engine), make_net(text, engine=engine)
    share_memory([shared])
    for net in (kept, shared):
        run(net)  # which shows what backward reads
        net.forward()
    first, second = (shared.params[name][0].data_tensor.storage for name in ("a", "b"))
    assert set(first.copies) == {HOST}, "nobody wants the gradient of x"
    assert [memory.rounds for memory in second.copies] == [False, True]
    shared.backward()
    assert set(second.copies) == {HOST}
    kept.backward()
    for name in ("a", "b"):
        np.testing.assert_array_equal(shared.params[name][0].diff, kept.params[name][0].diff)


CHAIN = (
    inputs(x=(4, 8), t=(4, 3))
    + """
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 5
        weight_filler { type: "xavier" } } }
layer { name: "b" type: "TanH" bottom: "a" top: "b" }
layer { name: "c" type: "InnerProduct" bottom: "b" top: "c" inner_product_param { num_output: 3
        weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "t" top: "loss" }
"""
)


def run(net: Net) -> None:
    random = np.random.default_rng(1)
    for name in net.inputs:
        net.blobs[name].write_data()[...] = random.standard_normal(net.blobs[name].shape)
    net.forward()
    if net.phase != TEST:
        net.backward()


def test_share_memory_makes_reading_too_late_an_error() -> None:
    net = make_net(CHAIN)
    share_memory([net])
    run(net)
    sentence = (
        r'^data of blob "b": values must be read before the last layer that needs them is done, got a read'
    )
    for _ in range(2):
        with pytest.raises(UserError, match=sentence):
            net.blobs["b"].data  # noqa: B018 (the property is what raises)
    with pytest.raises(UserError, match='^diff of blob "c": .*--keep-blobs'):
        net.blobs["c"].read_diff()
    run(net)  # written anew, it can be used again
    with pytest.raises(UserError, match=sentence):
        net.blobs["b"].update_data()


def test_share_memory_in_tests_gives_back_behind_the_last_reader() -> None:
    net = make_net(CHAIN, TEST)
    share_memory([net])
    run(net)
    with pytest.raises(UserError, match='data of blob "a"'):
        net.blobs["a"].read_data()
    assert net.blobs["a"].read_diff().tolist() == np.zeros((4, 5)).tolist()  # never written


def test_share_memory_leaves_inputs_outputs_and_losses_to_be_read() -> None:
    kept, shared = make_net(CHAIN), make_net(CHAIN)
    share_memory([shared])
    for net in (kept, shared):
        run(net)
    for name in ("x", "t", "loss"):
        np.testing.assert_array_equal(shared.blobs[name].data, kept.blobs[name].data)
    assert shared.blobs["loss"].diff == 1


def test_share_memory_leaves_alone_arrays_that_somebody_holds() -> None:
    net = make_net(CHAIN)
    held_before = net.blobs["a"].data
    pool = share_memory([net])
    seen = []
    net.callbacks.after_forward.append(lambda i: seen.append(net.blobs["c"].data) if i == 4 else None)
    run(net)
    values = seen[0].copy()
    assert np.abs(held_before).min() > 0
    run(net)
    assert seen[1] is seen[0]
    np.testing.assert_array_equal(seen[0], values)  # the same inputs again, and nobody else wrote there
    assert net.blobs["c"].data is seen[0]
    assert pool.lent_bytes == 64  # that of c, 4 by 3 numbers on a cache line


def test_share_memory_of_a_net_whose_inputs_change_their_size_follows() -> None:
    kept, shared = make_net(CHAIN), make_net(CHAIN)
    share_memory([shared])
    for size in (4, 9, 2, 30, 9):
        for net in (kept, shared):
            net.clear_param_diffs()
            net.blobs["x"].reshape(size, 8)
            net.blobs["t"].reshape(size, 3)
            run(net)
        for mine, theirs in zip(shared.learnable_params, kept.learnable_params, strict=True):
            np.testing.assert_array_equal(mine.blob.diff, theirs.blob.diff)


def test_share_memory_again_takes_another_pool() -> None:
    net = make_net(CHAIN)
    first = share_memory([net])
    run(net)
    net.forward()  # leaves values in the first pool
    second = share_memory([net])
    assert first.lent_bytes == 0
    run(net)
    assert second.peak_bytes > 0
    assert (first.lent_bytes, second.lent_bytes) == (0, 0)
    assert len(net.callbacks.done_forward) == 1
