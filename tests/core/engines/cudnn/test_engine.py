from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dtrain.core.engines import Promises, create_engine
from dtrain.core.engines.cudnn import declarations as dnn
from dtrain.core.engines.cudnn.engine import CudnnEngine
from dtrain.core.engines.operations import (
    ActivationSpec,
    BatchNormSpec,
    ConcatSpec,
    ConvolutionSpec,
    DropoutSpec,
    EltwiseSpec,
    InnerProductSpec,
    LRNSpec,
    PoolingSpec,
    SoftmaxSpec,
)
from dtrain.core.errors import UserError
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.single import SingleCommunicator
from tests.core.engines.cudnn.conftest import Array, Bench
from tests.core.solver.small_runs import write_database
from tests.played.cudnn import play_cudnn

EMPTY = (0, 2, 4, 4)


def test_create_of_what_cudnn_lacks_asks_cupy_and_says_so_once(
    make_bench: Callable[..., Bench], caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_bench().engine
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            engine.create(DropoutSpec((2, 3), 0.5, 2.0))
            engine.create(LRNSpec((2, 3, 4, 4), 3, 1.0, 0.75, 1.0, True))
    assert caplog.messages == [
        "engine cudnn has no Dropout; engine cupy runs it",
        "engine cudnn has no LRN within channels; engine cupy runs it",
    ]


@pytest.mark.parametrize(
    "spec",
    [
        ActivationSpec(EMPTY, "relu"),
        BatchNormSpec(EMPTY, 1e-5, True),
        ConcatSpec((EMPTY, EMPTY), 1),
        ConvolutionSpec(EMPTY, (2, 2, 1, 1), EMPTY, 1, (1, 1), (0, 0), (1, 1)),
        EltwiseSpec(EMPTY, "SUM", (1.0, 1.0)),
        InnerProductSpec(0, 3, 4),
        LRNSpec(EMPTY, 3, 1.0, 0.75, 1.0, False),
        PoolingSpec(EMPTY, (0, 2, 2, 2), "MAX", (2, 2), (2, 2), (0, 0)),
        SoftmaxSpec(EMPTY, 1),
    ],
)
def test_create_for_an_empty_batch_is_cupys(make_bench: Callable[..., Bench], spec: object) -> None:
    assert "reference" in type(make_bench().engine.create(spec)).__module__


def test_engine_and_its_fallback_share_the_memory_of_the_gpu(make_bench: Callable[..., Bench]) -> None:
    engine = make_bench("BF16").engine
    assert engine.fallback is not None
    assert engine.memory is engine.fallback.memory is engine.memories.plain


@pytest.mark.parametrize(
    ("precision", "allows_tf32", "text"),
    [
        ("FLOAT32", True, "FLOAT32 (products in TF32)"),
        ("FLOAT32", False, "FLOAT32"),
        ("BF16", True, "BF16"),
    ],
)
def test_describe_names_cudnn_the_gpu_and_the_precision(
    make_bench: Callable[..., Bench], precision: str, allows_tf32: bool, text: str
) -> None:
    engine = make_bench(precision, allows_tf32=allows_tf32).engine
    assert engine.describe().count("deterministic") == 0
    name = engine.xp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    version = engine.binding.library.version
    assert engine.describe().startswith(f"cudnn: cuDNN {version}, {name}, {text}; what it lacks: cupy")


def test_create_engine_lets_cudnn_keep_promises(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cudnn(monkeypatch)
    monkeypatch.setattr("dtrain.core.engines.cudnn.engine.ALLOWS_TF32", True)
    engine = create_engine("cudnn", promises=Promises(strict_float32=True, deterministic=True))
    assert isinstance(engine, CudnnEngine)
    assert (engine.math_type, engine.is_deterministic) == (dnn.EXACT_MATH, True)
    assert "FLOAT32, deterministic; what" in engine.describe()
    loose = create_engine("cudnn", "FLOAT32")
    assert isinstance(loose, CudnnEngine)
    assert (loose.math_type, loose.is_deterministic) == (dnn.DEFAULT_MATH, False)


def test_synchronize_waits_for_the_current_stream(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, waited = make_bench().engine, []
    stream = SimpleNamespace(synchronize=lambda: waited.append(True))
    monkeypatch.setattr(engine.xp.cuda, "get_current_stream", lambda: stream)
    engine.synchronize()
    assert waited == [True]


def test_workspace_is_at_most_a_tenth_of_the_gpu(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    assert bench.played.handles == set()
    assert bench.engine.workspace_bytes == (8 << 30) // 10
    assert make_bench(workspace_bytes=1000).engine.workspace_bytes == 1000


def test_lend_gives_each_thread_one_growing_array(make_bench: Callable[..., Bench]) -> None:
    engine, others = make_bench().engine, []
    small, large = engine.lend(10), engine.lend(100)
    assert engine.lend(50) is large
    assert (small.nbytes, large.nbytes) == (10, 100)
    thread = threading.Thread(target=lambda: others.append(engine.lend(10)))
    thread.start()
    thread.join()
    assert others[0] is not large
    assert engine.lend(0).nbytes == 100


def test_kernel_of_a_type_is_made_once(make_bench: Callable[..., Bench]) -> None:
    engine = make_bench().engine
    assert engine.kernel("finish", "epilogue", VALUE="float") is engine.kernel(
        "finish", "epilogue", VALUE="float"
    )
    assert engine.kernel("finish", "epilogue", VALUE="Half") is not engine.kernel(
        "finish", "epilogue", VALUE="float"
    )


def test_products_of_layers_are_cupys_in_strict_float32(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(allows_tf32=True)
    engine, (x, y) = bench.engine, (bench.normal(2, 3, 4), bench.normal(2, 4, 5))
    left, right = (engine.xp.asarray(values.astype(np.float32)) for values in (x, y))
    bench.expect(engine.matmul(left, right).get(), x @ y)
    bench.expect(engine.sum_squares(left[0]).get(), (x[0] ** 2).sum(axis=1))
    assert bench.played.cublas is not None
    assert bench.played.cublas.computed_in == [68]


def test_bf16_on_an_old_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cupy = play_cudnn(monkeypatch)
    properties = {"name": b"Old", "major": 7, "minor": 5, "totalGlobalMem": 1 << 30}
    monkeypatch.setattr(cupy.cuda.runtime, "getDeviceProperties", lambda device: properties)
    with pytest.raises(
        UserError,
        match=r"precision BF16 needs a GPU of compute capability 8.0 or later, got Old of 7.5; use FLOAT16 or",
    ):
        CudnnEngine("BF16")
    assert CudnnEngine("FLOAT16").memories.half == np.float16


def test_create_engine_on_a_gpu_is_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    play_cudnn(monkeypatch)
    assert create_engine(on_gpu=True).name == "cudnn"
    assert create_engine("cudnn", "BF16").precision == "BF16"


# A residual block, layers in place behind what is kept, a branch, and all that is fused.
NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{folder}/lmdb" backend: LMDB batch_size: 6 }} transform_param {{ scale: 0.01 }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "a" convolution_param {{ num_output: 16 kernel_size: 3
  pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "a" top: "a" }}
layer {{ name: "scale" type: "Scale" bottom: "a" top: "a" scale_param {{ bias_term: true }} }}
layer {{ name: "relu" type: "ReLU" bottom: "a" top: "a" }}
layer {{ name: "conv2" type: "Convolution" bottom: "a" top: "b" convolution_param {{ num_output: 16 kernel_size: 3
  pad: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "b" bottom: "a" top: "sum" }}
layer {{ name: "relu2" type: "ReLU" bottom: "sum" top: "sum" }}
layer {{ name: "pool" type: "Pooling" bottom: "sum" top: "p" pooling_param {{ kernel_size: 3 stride: 2 }} }}
layer {{ name: "relu3" type: "ReLU" bottom: "p" top: "p" }}
layer {{ name: "lrn" type: "LRN" bottom: "p" top: "n" }}
layer {{ name: "left" type: "Convolution" bottom: "n" top: "left" convolution_param {{ num_output: 16 kernel_size: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu4" type: "ReLU" bottom: "left" top: "left" }}
layer {{ name: "cat" type: "Concat" bottom: "left" bottom: "p" top: "cat" }}
layer {{ name: "drop" type: "Dropout" bottom: "cat" top: "cat" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "cat" top: "ip" inner_product_param {{ num_output: 4
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
SOLVER = """net: "{folder}/net.prototxt" base_lr: 0.02 momentum: 0.9 lr_policy: "fixed" max_iter: 4 iter_size: 2
random_seed: 7 display: 1 snapshot_after_train: false dtrain_param {{ precision: {precision} }}
"""


def train(folder: Path, name: str, precision: str, is_lean: bool) -> list[Array]:
    """Return the params after four iterations; lean: layers run as one and blobs share memory."""
    path = folder / "solver.prototxt"
    path.write_text(SOLVER.format(folder=folder, precision=precision))
    engine = create_engine(name, precision)
    with closing(Solver(read_recipe(str(path)), engine=engine, communicator=SingleCommunicator())) as solver:
        if is_lean:
            solver.fuse()
            assert len(solver.net.fused_layers) == 8
            share_memory([solver.net])
        solver.solve()
        return [blob.data.copy() for layer in solver.net.layers for blob in layer.blobs]


@pytest.mark.parametrize(("precision", "tolerance"), [("FLOAT32", 1e-5), ("BF16", 0.02)])
def test_training_with_layers_as_one_and_shared_memory_is_the_references(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, tolerance: float
) -> None:
    write_database(tmp_path / "lmdb")
    (tmp_path / "net.prototxt").write_text(NET.format(folder=tmp_path))
    expected = train(tmp_path, "reference", "FLOAT32", is_lean=False)
    play_cudnn(monkeypatch)
    actual = train(tmp_path, "cudnn", precision, is_lean=True)
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * max(1.0, np.abs(other).max()))
