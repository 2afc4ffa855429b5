"""Updates by given gradients, and gradient descent on least squares, against their closed forms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.net.params import trainable
from dtrain.core.solver.lr_policies import LR_POLICIES
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.updater import Updater, check_update
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


def make_trial(fields: str, specs: str = "", text: str = "") -> Trial:
    policy = "" if "lr_policy" in fields else 'lr_policy: "fixed"'
    param = text_format.Parse(f"base_lr: 0.5 {policy} {fields}", caffe_pb2.SolverParameter())
    net = make_net(text or least_squares(specs))
    arena = Arena(trainable(net.learnable_params))
    trial = Trial(net, arena, Updater(param, net.learnable_params, arena))
    weights, bias = net.params["ip"]
    weights.data[...], bias.data[...] = W, B
    return trial


SIGN_W, SIGN_B = np.sign(W), np.sign(B)


@pytest.mark.parametrize(
    ("fields", "specs", "world_size", "dw", "db"),
    [
        # dw, db: what must be taken off, divided by base_lr
        ("", "", 1, DW, DB),
        ("", "", 4, DW / 4, DB / 4),
        ("iter_size: 2", "", 1, DW / 2, DB / 2),
        ("iter_size: 2", "", 4, DW / 8, DB / 8),
        ("", "param { lr_mult: 3 } param { lr_mult: 0.5 }", 1, 3 * DW, 0.5 * DB),
        ("", "param { lr_mult: 0 decay_mult: 1 }", 1, 0 * DW, DB),
        ("weight_decay: 0.5", "", 1, DW + 0.5 * W, DB + 0.5 * B),
        ("weight_decay: 0.5", "param { decay_mult: 2 } param { decay_mult: 0 }", 1, DW + W, DB),
        ("weight_decay: 0.5", "param { lr_mult: 2 }", 1, 2 * (DW + 0.5 * W), DB + 0.5 * B),
        ("weight_decay: 0.5 regularization_type: 'L1'", "", 1, DW + 0.5 * SIGN_W, DB + 0.5 * SIGN_B),
        ("weight_decay: 0.5", "param { lr_mult: 0 }", 1, 0 * DW, DB + 0.5 * B),
        # decay comes after the divisions
        ("weight_decay: 0.5 iter_size: 2", "", 4, DW / 8 + 0.5 * W, DB / 8 + 0.5 * B),
        # clipping: by the norm over all params, of the mean over ranks, before iter_size and decay
        ("clip_gradients: 1", "", 1, DW / 5, DB / 5),
        ("clip_gradients: 5", "", 1, DW, DB),
        ("clip_gradients: 10", "", 1, DW, DB),
        ("clip_gradients: 0", "", 1, 0 * DW, 0 * DB),
        ("clip_gradients: 1 iter_size: 2", "", 1, DW / 10, DB / 10),
        ("clip_gradients: 2 iter_size: 2", "", 2, DW / 2 * (2 / 2.5) / 2, DB / 2 * (2 / 2.5) / 2),
        ("clip_gradients: 1 weight_decay: 0.5", "", 1, DW / 5 + 0.5 * W, DB / 5 + 0.5 * B),
        ("clip_gradients: 1", "param { lr_mult: 5 }", 1, DW, DB / 5),
    ],
)
def test_apply_takes_the_gradient_off_in_caffe_s_order(
    fields: str, specs: str, world_size: int, dw: Array, db: Array
) -> None:
    trial = make_trial(fields, specs)
    trial.update(world_size=world_size)
    np.testing.assert_allclose(trial.w, W - 0.5 * dw, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(trial.b, B - 0.5 * db, rtol=1e-6, atol=1e-7)


def test_apply_with_momentum_adds_to_the_velocity() -> None:
    trial = make_trial("momentum: 0.5", "param { lr_mult: 2 }")
    for iteration in range(2):
        trial.update(iteration=iteration)
    # v1 = rate·g; v2 = 1.5·rate·g; together 2.5·rate·g
    np.testing.assert_allclose(trial.w, W - 2.5 * 1.0 * DW, rtol=1e-6)
    np.testing.assert_allclose(trial.b, B - 2.5 * 0.5 * DB, rtol=1e-6)
    np.testing.assert_allclose(trial.updater.history[0], 1.5 * DW, rtol=1e-6)
    np.testing.assert_allclose(trial.updater.history[1], 0.75 * DB, rtol=1e-6)


def test_apply_follows_the_lr_policy() -> None:
    trial = make_trial('lr_policy: "step" gamma: 0.5 stepsize: 1')
    assert [trial.updater.rate(i) for i in range(3)] == [0.5, 0.25, 0.125]
    trial.update(iteration=2)
    np.testing.assert_allclose(trial.w, W - 0.125 * DW, rtol=1e-6)


def test_apply_updates_a_shared_param_once_by_the_sum_of_its_gradients() -> None:
    spec = 'param { name: "w" }'
    text = (
        inputs(x=(1, 3), z=(1, 3), y=(1, 1))
        + f"""
        layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "p" {spec}
          inner_product_param {{ num_output: 1 }} }}
        layer {{ name: "ip2" type: "InnerProduct" bottom: "z" top: "q" {spec}
          inner_product_param {{ num_output: 1 bias_term: false }} }}
        layer {{ name: "sum" type: "Eltwise" bottom: "p" bottom: "q" top: "s" }}
        layer {{ name: "loss" type: "EuclideanLoss" bottom: "s" bottom: "y" top: "loss" }}"""
    )
    trial = make_trial("momentum: 0.5", text=text)
    x, z = np.array([[1.0, 2.0, 3.0]]), np.array([[-1.0, 0.5, 2.0]])
    trial.net.blobs["x"].data[...], trial.net.blobs["z"].data[...] = x, z
    trial.arena.diff[...] = 0
    trial.net.forward()
    trial.net.backward()
    trial.updater.apply(0, 1)
    error = W @ (x + z).T + B  # y = 0
    np.testing.assert_allclose(trial.w, W - 0.5 * error * (x + z), rtol=1e-5)
    assert len(trial.updater.history) == 2


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_apply_on_least_squares_converges_as_its_matrix_says(decay: float) -> None:
    trial = make_trial(f"weight_decay: {decay}", "param { } param { lr_mult: 0 }")
    random = np.random.default_rng(3)
    x = random.standard_normal((8, 3)).astype(np.float32)
    y = random.standard_normal((8, 1)).astype(np.float32)
    trial.net.blobs["x"].data[...], trial.net.blobs["y"].data[...] = x, y
    for iteration in range(12):
        trial.arena.diff[...] = 0
        trial.net.forward()
        trial.net.backward()
        trial.updater.apply(iteration, 1)
    # w ← w − r·(H·w − c) with H = XᵀX/8 + decay: the distance to the minimum shrinks by (1 − r·H) each time
    wide = x.astype(np.float64)
    hessian = wide.T @ wide / 8 + decay * np.eye(3)
    minimum = np.linalg.solve(hessian, wide.T @ (y - B) / 8)
    shrink = np.linalg.matrix_power(np.eye(3) - 0.5 * hessian, 12)
    np.testing.assert_allclose(trial.w.T, minimum + shrink @ (W.T - minimum), rtol=1e-4, atol=1e-5)


def test_history_has_one_array_for_each_param_those_that_do_not_learn_included() -> None:
    text = least_squares("param { lr_mult: 0 }").replace(
        'layer { name: "loss"',
        'layer { name: "bn" type: "BatchNorm" bottom: "p" top: "p" }\nlayer { name: "loss"',
    )
    trial = make_trial("", text=text)
    assert [array.shape for array in trial.updater.history] == [(1, 3), (1,), (1,), (1,), (1,)]
    assert not any(array.any() for array in trial.updater.history)


def test_check_update_of_a_mistaken_solver_names_all_that_is_unknown() -> None:
    solver = caffe_pb2.SolverParameter(regularization_type="L3", type="SGDD", lr_policy="stepp")
    types, policies = ", ".join(UPDATE_RULES), ", ".join(LR_POLICIES)
    assert check_update(solver) == [
        ("type", f'unknown solver type "SGDD"; did you mean "SGD"?; known: {types}'),
        ("lr_policy", f'unknown lr_policy "stepp"; did you mean "step"?; known: {policies}'),
        ("regularization_type", 'regularization_type must be L2 or L1, got "L3"'),
    ]
