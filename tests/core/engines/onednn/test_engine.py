from __future__ import annotations

import logging
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain.core.blob import Blob
from dtrain.core.engines import create_engine
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.engines.onednn.pooling import Pooling
from dtrain.core.engines.operations import (
    ActivationSpec,
    ConvolutionSpec,
    DropoutSpec,
    InnerProductSpec,
    LRNSpec,
    PoolingSpec,
    Wanted,
)
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LayerContext
from dtrain.core.net.net import Net
from dtrain.core.random_streams import RandomStreams
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.core.tensor import HOST
from dtrain.data.sampler import Shard
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator
from dtrain.dist.threads import run_ranks
from dtrain.proto import caffe_pb2
from tests.core.engines.onednn.conftest import BF16_ROUNDOFF
from tests.core.net_builder import TEST, make_recipe

CONVOLUTION = ConvolutionSpec((2, 32, 8, 8), (32, 32, 3, 3), (2, 32, 8, 8), 1, (1, 1), (1, 1), (1, 1))


def test_create_of_what_onednn_lacks_asks_the_reference_and_says_so_once(
    onednn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine("onednn")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            engine.create(DropoutSpec((2, 3), 0.5, 2.0))
            engine.create(LRNSpec((2, 32, 5, 5), 9, 1.0, 0.75, 1.0, False))
    assert caplog.messages == [
        "engine onednn has no Dropout; engine reference runs it",
        "engine onednn has no LRN over 9 neighbours across channels; engine reference runs it",
    ]


@pytest.mark.parametrize(
    "spec",
    [
        PoolingSpec((0, 1, 4, 4), (0, 1, 2, 2), "MAX", (2, 2), (2, 2), (0, 0)),
        InnerProductSpec(0, 3, 4),
        ActivationSpec((2, 0), "relu"),
    ],
)
def test_create_of_an_empty_operation_is_the_references_without_a_word(
    onednn: Any, caplog: pytest.LogCaptureFixture, spec: Any
) -> None:
    with caplog.at_level(logging.INFO):
        assert type(create_engine("onednn").create(spec)).__module__.startswith(
            "dtrain.core.engines.reference"
        )
    assert not caplog.messages


def test_engine_keeps_values_in_layouts_from_convolution_to_convolution(onednn: Any) -> None:
    """Forward and backward through convolution, relu in place, pooling and convolution touch no plain activation."""
    pool = PoolingSpec((2, 32, 8, 8), (2, 32, 8, 8), "MAX", (3, 3), (1, 1), (1, 1))
    first, second = onednn.create(CONVOLUTION), onednn.create(CONVOLUTION)
    relu, pooling = onednn.create(ActivationSpec((2, 32, 8, 8), "relu")), onednn.create(pool)
    assert isinstance(pooling, Pooling)
    x, a, b, y = (Blob((2, 32, 8, 8)) for _ in range(4))
    params = Blob((32, 32, 3, 3)), Blob((32,))
    first.forward(x, *params, a)
    relu.forward(a, a)
    pooling.forward(a, b, None)
    second.forward(b, *params, y)
    y.diff[...] = 1
    second.backward(b, *params, y, Wanted())
    pooling.backward(a, b)
    relu.backward(a, a)
    first.backward(x, *params, a, Wanted())
    for tensor in (a.data_tensor, b.data_tensor, a.diff_tensor, b.diff_tensor):
        assert HOST not in tensor.storage.copies
        assert all(isinstance(memory, Layout) for memory in tensor.storage.copies)


NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 32 dim: 4 dim: 4 } } }
layer { name: "c1" type: "Convolution" bottom: "x" top: "y"
  convolution_param { num_output: 32 kernel_size: 1 weight_filler { type: "constant" value: 1 } } }
layer { name: "c2" type: "Convolution" bottom: "y" top: "z"
  convolution_param { num_output: 16 kernel_size: 1 weight_filler { type: "constant" value: 1 } } }
"""


def test_arrays_that_somebody_keeps_are_read_and_brought_up_to_date(onednn: Any) -> None:
    """As in Caffe on a CPU, where blob.data is fetched once and then used around many passes."""
    net = Net(make_recipe(NET, TEST), LayerContext(TEST, onednn, RandomStreams(1), Shard(0, 1)))
    x, y = net.blobs["x"].data, net.blobs["y"].data
    weight = net.params["c1"][0].data
    z = net.blobs["z"].data
    for value, factor in ((1, 1), (2, 1), (2, 3)):
        x[...], weight[...] = value, factor
        net.forward()
        assert np.all(y == 32 * value * factor)
        assert np.all(z == 32 * 32 * value * factor)


LEARNER = """
layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
  shape { dim: 8 dim: 3 dim: 12 dim: 12 } shape { dim: 8 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 2 } } }
layer { name: "c1" type: "Convolution" bottom: "x" top: "c1"
  convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "b1" type: "BatchNorm" bottom: "c1" top: "c1" }
layer { name: "s1" type: "Scale" bottom: "c1" top: "c1" scale_param { bias_term: true } }
layer { name: "r1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "p1" type: "Pooling" bottom: "c1" top: "p1" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "n1" type: "LRN" bottom: "p1" top: "n1" }
layer { name: "c2" type: "Convolution" bottom: "n1" top: "c2"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 group: 2 weight_filler { type: "xavier" } } }
layer { name: "c3" type: "Convolution" bottom: "n1" top: "c3"
  convolution_param { num_output: 32 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "c2" bottom: "c3" top: "sum" }
layer { name: "cat" type: "Concat" bottom: "sum" bottom: "c2" top: "cat" }
layer { name: "p2" type: "Pooling" bottom: "cat" top: "p2"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
layer { name: "fc" type: "InnerProduct" bottom: "p2" top: "fc"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


def test_training_on_onednn_follows_training_on_the_reference(onednn: Any, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(LEARNER)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" random_seed: 3'
    )
    losses: list[list[float]] = []
    params = []
    for name in ("reference", "onednn"):
        solver = Solver(
            read_recipe(str(path)), engine=create_engine(name), communicator=create_communicator(None, {})
        )
        losses.append([])
        for _ in range(6):
            solver.step(1)
            losses[-1].append(float(solver.net.blobs["loss"].read_data()))
        params.append(
            {(layer, i): b.read_data() for layer, bs in solver.net.params.items() for i, b in enumerate(bs)}
        )
        solver.close()
    assert losses[0][-1] < losses[0][0] / 2  # it has learned something
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3, atol=1e-4)
    for key, expected in params[0].items():
        scale = max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(params[1][key], expected, rtol=0, atol=1e-3 * scale, err_msg=str(key))


def write_learner(folder: Path, fields: str = "") -> str:
    """Write a solver that learns in bf16; return its path."""
    (folder / "net.prototxt").write_text(LEARNER)
    path = folder / "solver.prototxt"
    path.write_text(
        f'net: "{folder}/net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" random_seed: 3 '
        f'snapshot_prefix: "{folder}/kept" dtrain_param {{ precision: BF16 }} {fields}'
    )
    return str(path)


def solve_in_bf16(path: str, communicator: Communicator, snapshot: str = "") -> tuple[list[float], Any]:
    """Run the solver to its end; return the losses of its iterations and the bytes of its params, the statistics of a
    BatchNorm, which are each rank's own, last.
    """
    recipe = read_recipe(path)
    engine = create_engine(None, recipe.precision)
    losses: list[float] = []
    with closing(Solver(recipe, engine=engine, communicator=communicator)) as solver:
        if snapshot:
            solver.restore(snapshot)
        while solver.iter < recipe.solver.max_iter:
            solver.step(1)
            losses.append(float(solver.net.blobs["loss"].read_data()))
        assert {blob.dtype for blobs in solver.net.params.values() for blob in blobs} == {
            np.dtype(np.float32)
        }
        layers = sorted(solver.net.params, key=lambda name: name == "b1")
        params = [blob.read_data().tobytes() for name in layers for blob in solver.net.params[name]]
    return losses, params


@pytest.mark.parametrize("seed", [1, 2])
def test_net_in_bf16_is_within_three_roundings_of_float32(onednn_in_bf16: Any, seed: int) -> None:
    """In the Euclidean norm, blobs and gradients. c1 lies before a BatchNorm, where most of a gradient cancels
    out, so that what is left for its weight is worse (and for its bias nothing).
    """
    nets = []
    for engine in (create_engine("reference"), onednn_in_bf16):
        context = LayerContext(caffe_pb2.TRAIN, engine, RandomStreams(seed), Shard(0, 1))
        nets.append(Net(make_recipe(LEARNER, caffe_pb2.TRAIN), context))
        nets[-1].forward()
        nets[-1].backward()
    expected, actual = nets
    for name, blob in expected.blobs.items():
        assert _distance(actual.blobs[name].read_data(), blob.read_data()) < 3 * BF16_ROUNDOFF, name
    for name in ("s1", "c2", "c3", "fc"):
        for one, other in zip(actual.params[name], expected.params[name], strict=True):
            assert _distance(one.read_diff(), other.read_diff()) < 3 * BF16_ROUNDOFF, name
    weights = [net.params["c1"][0].read_diff() for net in (actual, expected)]
    assert _distance(*weights) < 0.2


def _distance(actual: Any, expected: Any) -> float:
    """Return how far values are off, relative to their norm."""
    return float(np.linalg.norm(actual - expected) / np.linalg.norm(expected))


def test_training_in_bf16_learns_what_float32_learns(onednn_in_bf16: Any, tmp_path: Path) -> None:
    path = write_learner(tmp_path, "max_iter: 10")
    losses, _ = solve_in_bf16(path, create_communicator(None, {}))
    recipe, engine = read_recipe(path, precision="FLOAT32"), create_engine("reference")
    solver = Solver(recipe, engine=engine, communicator=create_communicator(None, {}))
    for loss in losses:
        solver.step(1)
        assert loss == pytest.approx(float(solver.net.blobs["loss"].read_data()), abs=0.05)
    solver.close()
    assert losses[-1] < losses[0] / 10


def test_solver_of_bf16_with_an_engine_of_float32_is_refused(tmp_path: Path) -> None:
    recipe, engine = read_recipe(write_learner(tmp_path)), create_engine("reference")
    with pytest.raises(UserError, match="engine reference was made for, FLOAT32, got BF16; create_engine"):
        Solver(recipe, engine=engine, communicator=create_communicator(None, {}))


def test_training_in_bf16_that_is_resumed_goes_on_bit_for_bit(onednn_in_bf16: Any, tmp_path: Path) -> None:
    path = write_learner(tmp_path, "max_iter: 6 snapshot: 3")
    losses, params = solve_in_bf16(path, create_communicator(None, {}))
    resumed = solve_in_bf16(path, create_communicator(None, {}), f"{tmp_path}/kept_iter_3.solverstate")
    assert resumed == (losses[3:], params)


def test_training_in_bf16_leaves_float32_in_snapshots(onednn_in_bf16: Any, tmp_path: Path) -> None:
    _, params = solve_in_bf16(
        write_learner(tmp_path, "max_iter: 3 snapshot: 3"), create_communicator(None, {})
    )
    model = caffe_pb2.NetParameter.FromString((tmp_path / "kept_iter_3.caffemodel").read_bytes())
    layers = sorted(model.layer, key=lambda layer: layer.name == "b1")
    kept = [np.array(blob.data, np.float32).tobytes() for layer in layers for blob in layer.blobs]
    assert kept == params
    first = np.frombuffer(params[0], np.uint32)
    assert np.any(first & 0xFFFF)  # the bits that bf16 has not


def test_training_in_bf16_leaves_all_ranks_the_same_params(onednn_in_bf16: Any, tmp_path: Path) -> None:
    path = write_learner(tmp_path, "max_iter: 4")
    (_, params), (_, other_params) = run_ranks(2, lambda communicator: solve_in_bf16(path, communicator))
    assert params[:-3] == other_params[:-3]
    assert params[-3:] != other_params[-3:]


def test_engine_in_bf16_keeps_values_in_bf16_from_convolution_to_convolution(onednn_in_bf16: Any) -> None:
    """As in float32, above; the data of x are float32 beside bf16."""
    pool = PoolingSpec((2, 32, 8, 8), (2, 32, 8, 8), "MAX", (3, 3), (1, 1), (1, 1))
    first, second = onednn_in_bf16.create(CONVOLUTION), onednn_in_bf16.create(CONVOLUTION)
    relu = onednn_in_bf16.create(ActivationSpec((2, 32, 8, 8), "relu"))
    pooling = onednn_in_bf16.create(pool)
    x, a, b, y = (Blob((2, 32, 8, 8)) for _ in range(4))
    params = Blob((32, 32, 3, 3)), Blob((32,))
    for blob in (x, *params):
        blob.write_data()[...] = 1
    first.forward(x, *params, a)
    relu.forward(a, a)
    pooling.forward(a, b, None)
    second.forward(b, *params, y)
    y.diff_tensor.write()[...] = 1
    second.backward(b, *params, y, Wanted())
    pooling.backward(a, b)
    relu.backward(a, a)
    first.backward(x, *params, a, Wanted())
    for tensor in (a.data_tensor, b.data_tensor, a.diff_tensor, b.diff_tensor, x.diff_tensor):
        assert all(memory.rounds for memory in tensor.storage.copies)
    for param in params:
        assert list(param.diff_tensor.storage.copies) == [HOST]
        assert HOST in param.data_tensor.storage.valid


def test_engine_shared_by_threads_gives_each_its_own_result(onednn: Any) -> None:
    random = np.random.default_rng(1)
    inputs = [random.standard_normal(CONVOLUTION.x_shape).astype(np.float32) for _ in range(4)]
    weight = Blob(CONVOLUTION.weight_shape)
    weight.data[...] = random.standard_normal(weight.shape)

    def run(x: Any) -> Any:
        """Return what a rank that has its own net and params gets."""
        blobs = Blob(x.shape), Blob(weight.shape), Blob((32,)), Blob(CONVOLUTION.y_shape)
        operation = onednn.create(CONVOLUTION)
        for _ in range(5):
            blobs[0].data[...], blobs[1].data[...] = x, weight.read_data()
            operation.forward(*blobs)
            blobs[3].diff[...] = 1
            operation.backward(*blobs, Wanted())
        return blobs[3].data.copy(), blobs[1].diff.copy()

    expected = [run(x) for x in inputs]
    actual: list[Any] = [None] * len(inputs)

    def work(i: int) -> None:
        actual[i] = run(inputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one[0], other[0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one[1], other[1], rtol=1e-4, atol=1e-3)


def test_lend_is_one_growing_array_per_purpose(onednn: Any) -> None:
    first = onednn.lend("this", 100)
    assert onednn.lend("this", 50) is first
    assert onednn.lend("that", 50) is not first
    assert onednn.lend("this", 1000).nbytes >= 1000


def test_describe_names_version_and_threads(onednn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    version, runtime = onednn.binding.library.version, onednn.binding.library.runtime
    assert onednn.describe().startswith(f"onednn: oneDNN {version}, 3 {runtime} threads; what it lacks: ")
