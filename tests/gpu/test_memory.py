"""Memory of a real GPU: what training takes of it, beside what is planned."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.cupy.devices import open_cupy
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.net.building import build_net
from dtrain.core.net.memory_sharing import share_memory
from dtrain.data.sampler import Shard
from dtrain.launcher.simulation.device_memory import WORKSPACE_BYTES, count_pass
from dtrain.proto import caffe_pb2

NUM_CONVOLUTIONS = 12
NET = 'layer { name: "data" type: "DummyData" top: "data" top: "target" dummy_data_param { FILLER SHAPES } }'.replace(
    "FILLER", 'data_filler { type: "constant" value: 1 }'
).replace("SHAPES", "shape { dim: 64 dim: 64 dim: 56 dim: 56 } shape { dim: 64 dim: 10 }")
LAYER = """
layer { name: "c{k}" type: "Convolution" bottom: "{below}" top: "c{k}"
  convolution_param { num_output: 64 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "n{k}" type: "BatchNorm" bottom: "c{k}" top: "c{k}" }
layer { name: "r{k}" type: "ReLU" bottom: "c{k}" top: "c{k}" }
"""
END = """
layer { name: "ip" type: "InnerProduct" bottom: "{below}" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "target" top: "loss" }
"""


def text() -> str:
    parts, below = [NET], "data"
    for k in range(NUM_CONVOLUTIONS):
        parts.append(LAYER.replace("{k}", str(k)).replace("{below}", below))
        below = f"c{k}"
    return "".join([*parts, END.replace("{below}", below)])


@pytest.mark.parametrize("precision", ["FLOAT32", "BF16"])
@pytest.mark.usefixtures("gpus")
def test_pass_takes_what_is_planned(tmp_path: Path, precision: str) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(text())
    pool = open_cupy().get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    before = pool.total_bytes()
    net = build_net(
        read_net(str(path), caffe_pb2.TRAIN), create_engine("cudnn", precision, on_gpu=True), Shard(0, 1)
    )
    net.fuse()
    planned = count_pass(net)
    share_memory([net])
    for _ in range(3):
        net.clear_param_diffs()
        net.forward()
        net.backward()
        pool.free_all_blocks()  # of measuring algorithms
    net.clear_param_diffs()
    net.forward()
    net.backward()
    taken = pool.total_bytes() - before
    params = sum(8 * param.blob.count for param in net.learnable_params)
    figures = f"planned {planned}, params {params}, taken {taken} bytes"
    assert planned.least <= taken, figures
    assert taken <= 1.1 * (planned.planned + params) + WORKSPACE_BYTES, figures
