"""A net of one inner product, its arena and its updater: what the tests of updates give gradients to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.solver.updater import Updater
from dtrain.proto import caffe_pb2
from tests.core.net_builder import inputs, make_net

Array = NDArray[np.float64]

W, B = np.array([[1.0, -2.0, 3.0]]), np.array([-4.0])
DW, DB = np.array([[2.0, 1.0, -2.0]]), np.array([4.0])  # norm √(4 + 1 + 4 + 16) = 5


def least_squares(specs: str = "") -> str:
    """Return the net loss = Σ (x·w + b − y)² / (2·8)."""
    return (
        inputs(x=(8, 3), y=(8, 1))
        + f"""
        layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "p" {specs}
          inner_product_param {{ num_output: 1 }} }}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "p" bottom: "y" top: "loss" }}"""
    )


@dataclass
class Trial:
    """A net with w and b, and its updater."""

    net: Net
    arena: Arena
    updater: Updater

    @property
    def w(self) -> Array:
        return self.net.params["ip"][0].data.astype(np.float64)

    @property
    def b(self) -> Array:
        return self.net.params["ip"][1].data.astype(np.float64)

    def update(self, dw: Array = DW, db: Array = DB, iteration: int = 0, world_size: int = 1) -> None:
        weights, bias = self.net.params["ip"]
        weights.diff[...], bias.diff[...] = dw, db
        self.updater.apply(iteration, world_size)


def make_trial(
    fields: str, specs: str = "", text: str = "", fill: bool = True, num_threads: int | None = None
) -> Trial:
    policy = "" if "lr_policy" in fields else 'lr_policy: "fixed"'
    param = text_format.Parse(f"base_lr: 0.5 {policy} {fields}", caffe_pb2.SolverParameter())
    net = make_net(text or least_squares(specs))
    arena = Arena(net.param_table.with_gradients)
    trial = Trial(net, arena, Updater(param, net.learnable_params, arena, num_threads))
    if fill:
        weights, bias = net.params["ip"]
        weights.data[...], bias.data[...] = W, B
    return trial


WIDE = (
    inputs(x=(1, 7))
    + """
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "p"
      inner_product_param { num_output: 5 weight_filler { type: "gaussian" } } }"""
)
DWIDE, DWIDE_B = np.arange(35).reshape(5, 7) - 17, np.arange(5) - 2.0


def results_of(trial: Trial) -> list[Array]:
    """Return all that three updates change."""
    for iteration in range(3):
        trial.update(DWIDE, DWIDE_B, iteration)
    diffs = [param.blob.diff for param in trial.updater.params]
    trial.updater.close()
    return [trial.w, trial.b, *diffs, *trial.updater.history]
