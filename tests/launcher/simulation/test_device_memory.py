"""What training takes of a GPU: planned, against counts by hand and what a played GPU has really lent."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.outline import create_outline
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.net.net import Net
from dtrain.launcher.simulation.device_memory import (
    CUDA_BYTES,
    count_device_memory,
    count_params,
    count_pass,
    device_memory_lines,
    has_workspace,
)
from dtrain.proto import caffe_pb2
from tests.core.net_builder import TEST, make_net
from tests.launcher.simulation.nets import DATA, dims, inner_product, loss
from tests.played.cudnn import play_cudnn
from tests.played.cupy import DeviceArray

ITEMS, CHANNELS, SIDE = 8, 16, 16
PLANE = ITEMS * CHANNELS * SIDE * SIDE  # values of a blob


def convolution(name: str, bottom: str) -> str:
    filler = 'weight_filler { type: "xavier" }'
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"\n'
        f"  convolution_param {{ num_output: {CHANNELS} kernel_size: 3 pad: 1 {filler} }} }}\n"
        f'layer {{ name: "bn_{name}" type: "BatchNorm" bottom: "{name}" top: "{name}" }}\n'
        f'layer {{ name: "scale_{name}" type: "Scale" bottom: "{name}" top: "{name}"\n'
        "  scale_param { bias_term: true } }\n"
        f'layer {{ name: "relu_{name}" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'
    )


TEXT = (
    DATA.format(data=dims(ITEMS, CHANNELS, SIDE, SIDE), target=dims(ITEMS, 10))
    + convolution("a", "data")
    + convolution("b", "a")
    + convolution("c", "b")
    + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "c" top: "sum" }\n'
    + convolution("d", "sum")
    + 'layer { name: "join" type: "Concat" bottom: "sum" bottom: "d" top: "join" }\n'
    + 'layer { name: "pool" type: "Pooling" bottom: "join" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }\n'
    + inner_product("ip", "pool", 10)
    + loss("ip")
)


class Live:
    """How many bytes of played device memory there are. most: so far."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._known: set[int] = set()

    def enter(self, values: np.ndarray) -> None:
        while isinstance(values.base, np.ndarray):
            values = values.base
        if id(values) not in self._known:
            self._known.add(id(values))
            self.now += values.nbytes
            self.most = max(self.most, self.now)
            weakref.finalize(values, self._leave, id(values), values.nbytes)

    def _leave(self, key: int, num_bytes: int) -> None:
        self._known.discard(key)
        self.now -= num_bytes


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    """Count what arrays are made on the device inside the with statement."""
    live, make = Live(), DeviceArray.__init__

    def make_counted(self: DeviceArray, values: np.ndarray) -> None:
        live.enter(values)
        make(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(DeviceArray, "__init__", make_counted)
        yield live


def run(net: Net) -> None:
    net.clear_param_diffs()
    net.forward()
    net.backward()


@pytest.mark.parametrize("precision", ["FLOAT32", "BF16"])
@pytest.mark.parametrize("phase", [0, TEST])
def test_count_pass_is_about_what_a_gpu_has_lent(
    monkeypatch: pytest.MonkeyPatch, precision: str, phase: int
) -> None:
    if play_cudnn(monkeypatch)[0] is None:
        pytest.skip("memory of a played GPU is counted, and this is a real one")
    net = make_net(TEXT, phase, engine=create_engine("cudnn", precision))
    net.fuse()
    planned = count_pass(net)
    share_memory([net])
    net.blobs["data"].write_data(net.context.engine.memory)[...] = 1  # as a layer does that reads
    passes = run if phase == 0 else Net.forward
    passes(net)
    tensors = [t for blob in net.blobs.values() for t in (blob.data_tensor, blob.diff_tensor)]
    copies = [c for storage in {t.storage for t in tensors} for c in storage.copies.values()]
    stays = sum(copy.nbytes for copy in copies if isinstance(copy, DeviceArray))
    with counted(monkeypatch) as live:
        passes(net)
    assert planned.least <= live.most + stays
    assert planned.blobs == pytest.approx(live.most + stays, rel=0.12)


@pytest.mark.parametrize("phase", [0, TEST])
@pytest.mark.parametrize("precision", ["FLOAT32", "BF16"])
def test_count_pass_without_sharing_is_what_written_blobs_hold(
    monkeypatch: pytest.MonkeyPatch, precision: str, phase: int
) -> None:
    if play_cudnn(monkeypatch)[0] is None:
        pytest.skip("memory of a played GPU is counted, and this is a real one")
    net = make_net(TEXT, phase, engine=create_engine("cudnn", precision))
    net.fuse()
    planned = count_pass(net, shares=False)
    net.blobs["data"].write_data(net.context.engine.memory)[...] = 1
    net.blobs["target"].read_data(net.context.engine.memory)
    (run if phase == 0 else Net.forward)(net)
    if phase == 0:
        net.blobs["loss"].read_diff(net.context.engine.memory)
    tensors = [t for blob in net.blobs.values() for t in (blob.data_tensor, blob.diff_tensor)]
    copies = [c for storage in {t.storage for t in tensors} for c in storage.copies.values()]
    held = sum(copy.nbytes for copy in copies if isinstance(copy, DeviceArray))
    assert planned.least <= held <= planned.blobs
    assert planned.blobs == pytest.approx(held, rel=0.02)


def test_count_params_by_the_solver() -> None:
    net = make_net(TEXT, engine=create_outline("cudnn"))
    convolutions, norms = 4 * (CHANNELS * CHANNELS * 9 + CHANNELS), 4 * 2 * CHANNELS
    num_learned = convolutions + norms + 2 * CHANNELS * 8 * 8 * 10 + 10
    num_statistics = 4 * (2 * CHANNELS + 1)

    def found(**fields: object) -> list[int]:
        text = caffe_pb2.DtrainSolverParameter(**fields)  # type: ignore[arg-type]
        return list(count_params(net, caffe_pb2.SolverParameter(type="Adam", dtrain_param=text)).values())

    params = 4 * (num_learned + num_statistics)
    assert found() == [params, 4 * num_learned, 8 * num_learned]
    assert found(stale_gradients=True) == [params, 12 * num_learned, 8 * num_learned]
    half = caffe_pb2.DtrainSolverParameter.BFLOAT16
    assert found(wire_precision=half, ema_decay=0.9) == [params, 6 * num_learned, 12 * num_learned]


def test_count_device_memory_keeps_places_of_maxima_and_names_what_cuda_takes() -> None:
    found = count_device_memory(make_net(TEXT, engine=create_outline("cudnn")), caffe_pb2.SolverParameter())
    assert list(found) == ["params", "gradients", "history", "blobs", "batches", "scratch", "CUDA"]
    assert found["CUDA"] == CUDA_BYTES
    winners = 2 * PLANE // 4  # a byte for each value of the pool's top
    assert found["scratch"] == winners + 2 * CHANNELS * CHANNELS * 9


def test_has_workspace_is_for_convolutions_by_cudnn() -> None:
    text = DATA.format(data=dims(2, 4), target=dims(2, 3)) + inner_product("ip", "data", 3)
    assert has_workspace(make_net(TEXT, engine=create_outline("cudnn")))
    assert not has_workspace(make_net(TEXT, engine=create_outline("cupy")))
    assert not has_workspace(make_net(text, engine=create_outline("cudnn")))


def test_device_memory_lines_say_the_sum_the_workspace_and_each_image() -> None:
    net = make_net(TEXT, engine=create_outline("cudnn", "BF16"))
    found = count_device_memory(net, caffe_pb2.SolverParameter())
    title, parts, *more = device_memory_lines(net, caffe_pb2.SolverParameter())
    total = sum(found.values()) / 1e6
    assert title == (
        f"  memory of a rank's GPU in training (SGD): {total:,.1f} MB, and a workspace of up to 1,073.7"
    )
    assert parts.startswith("    params 0.1, gradients 0.1, ")
    each = (found["blobs"] + found["scratch"]) / ITEMS / 1e6
    assert more[-1] == f"    {each:,.2f} MB of it for each image of {ITEMS}"
    recomputing = caffe_pb2.SolverParameter(dtrain_param=caffe_pb2.DtrainSolverParameter(recompute=True))
    assert "in training (SGD, recomputing): " in device_memory_lines(net, recomputing)[0]
