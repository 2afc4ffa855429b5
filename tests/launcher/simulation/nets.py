"""Nets for the tests of a prediction: built from text, with their learned params in an arena as in training."""

from __future__ import annotations

from pathlib import Path

from dtrain.core.engines import create_engine
from dtrain.core.graph.net_recipe import read_net
from dtrain.core.net.arena import Arena
from dtrain.core.net.building import build_net
from dtrain.core.net.net import Net
from dtrain.core.solver.extra_values import NUM_EXTRA
from dtrain.data.sampler import Shard
from dtrain.proto import caffe_pb2

DATA = """
layer {{ name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param {{ shape {{ {data} }} shape {{ {target} }} data_filler {{ type: "constant" value: 1 }} }} }}
"""


def dims(*lengths: int) -> str:
    """Return a shape as prototxt writes it."""
    return " ".join(f"dim: {length}" for length in lengths)


def inner_product(name: str, bottom: str, num_output: int, params: str = "") -> str:
    """Return an InnerProduct layer whose top has its name."""
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {params} '
        f"inner_product_param {{ num_output: {num_output} }} }}\n"
    )


def loss(bottom: str) -> str:
    """Return the loss that compares `bottom` with target."""
    return f'layer {{ name: "loss" type: "EuclideanLoss" bottom: "{bottom}" bottom: "target" top: "loss" }}\n'


def build(folder: Path, text: str) -> tuple[Net, Arena]:
    """Return the net of `text`, which is written to a file in `folder`, and the arena of its params."""
    path = folder / "built.prototxt"
    path.write_text(text)
    net = build_net(read_net(str(path), caffe_pb2.TRAIN), create_engine("reference"), Shard(0, 1))
    return net, Arena(net.param_table.with_gradients, NUM_EXTRA)
