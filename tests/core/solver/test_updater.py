"""Updates by given gradients, and gradient descent on least squares, against their closed forms."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.core.net.arena import Arena
from dtrain.core.net.params import trainable
from dtrain.core.solver.updater import Updater
from dtrain.proto import caffe_pb2
from tests.core.net_builder import inputs, make_net
from tests.core.solver.trials import DB, DW, WIDE, Array, B, W, least_squares, make_trial

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


@pytest.mark.parametrize(
    ("options", "decays"),
    [
        # weight and bias of conv, factor and bias of scale, weight and bias of ip: decay 0.5 times decay_mult
        ("", [0.5, 1, 0.5, 0.5, 0.5, 0.5]),
        ("no_decay_for_bias: true", [0.5, 0, 0.5, 0, 0.5, 0]),
        ("no_decay_for_norm: true", [0.5, 1, 0, 0, 0.5, 0.5]),
        ("no_decay_for_bias: true no_decay_for_norm: true", [0.5, 0, 0, 0, 0.5, 0]),
    ],
)
@pytest.mark.parametrize("solver_type", ["SGD", "AdamW"])  # which takes decay itself
def test_apply_leaves_decay_out_where_dtrain_param_says_so(
    solver_type: str, options: str, decays: list[float]
) -> None:
    text = (
        inputs(x=(1, 1, 2, 2))
        + """
        layer { name: "conv" type: "Convolution" bottom: "x" top: "c" param { } param { decay_mult: 2 }
          convolution_param { num_output: 2 kernel_size: 1 } }
        layer { name: "scale" type: "Scale" bottom: "c" top: "s" scale_param { bias_term: true } }
        layer { name: "ip" type: "InnerProduct" bottom: "s" top: "p" inner_product_param { num_output: 2 } }"""
    )
    net = make_net(text)
    fields = f'type: "{solver_type}" base_lr: 0.25 lr_policy: "fixed" weight_decay: 0.5'
    param = text_format.Parse(f"{fields} dtrain_param {{ {options} }}", caffe_pb2.SolverParameter())
    arena = Arena(trainable(net.learnable_params))
    for each in net.learnable_params:
        each.blob.data[...] = 8
    Updater(param, net.learnable_params, arena).apply(0, 1)  # of no gradient
    values = [float(each.blob.data.reshape(-1)[0]) for each in net.learnable_params]
    np.testing.assert_allclose(values, [8 - 0.25 * decay * 8 for decay in decays], rtol=1e-6)


def test_apply_counts_the_gradient_of_a_fixed_param_in_the_norm_under_force_backward() -> None:
    text = f"force_backward: true {least_squares('param { lr_mult: 0 }')}"
    trial = make_trial("clip_gradients: 1", text=text)
    trial.update()
    np.testing.assert_array_equal(trial.w, W)
    np.testing.assert_allclose(trial.b, B - 0.5 * DB / 5, rtol=1e-6)  # 5: with the 3 of DW


def test_apply_takes_diffs_that_were_cleared_for_zeros() -> None:
    trial = make_trial("clip_gradients: 1 weight_decay: 0.5", text=WIDE, fill=False)
    params = [param.blob for param in trial.arena.params]
    for blob in params:
        blob.write_diff()[...] = np.nan  # of the iteration before, which nobody holds
    trial.arena.clear()
    params[0].add_to_diff(np.full(5, 4.0))  # the bias's, of norm 4·√5
    before = trial.w
    trial.updater.apply(0, 1)
    np.testing.assert_allclose(trial.b, np.full(5, -0.5 / np.sqrt(5)), rtol=1e-6)
    np.testing.assert_allclose(trial.w, 0.75 * before, rtol=1e-6)


def test_apply_logs_each_step_of_multistep(caplog: pytest.LogCaptureFixture) -> None:
    trial = make_trial('lr_policy: "multistep" gamma: 0.5 stepvalue: [2, 3, 3]')
    with caplog.at_level(logging.INFO):
        for iteration in range(5):
            trial.update(iteration=iteration)
    assert caplog.messages == [
        "MultiStep Status: Iteration 2, step = 1",
        "MultiStep Status: Iteration 3, step = 3",
    ]


def test_apply_with_debug_info_logs_what_each_param_was_and_what_is_taken_off(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trial = make_trial("", 'param { name: "shared" lr_mult: 0.5 } param { lr_mult: 2 }')
    with caplog.at_level(logging.INFO):
        trial.update()
        assert caplog.messages == []
        trial.net.params["ip"][0].data[...], trial.net.params["ip"][1].data[...] = W, B
        trial.updater.debug_info = True
        trial.update()
    # rates 0.25 and 1: means of |W| = (1, 2, 3), |B| = 4 and of |DW| = (2, 1, 2), |DB| = 4
    assert caplog.messages == [
        f"    [Update] Layer ip, param shared data: 2; diff: {0.25 * 5 / 3:g}",
        "    [Update] Layer ip, param 1 data: 4; diff: 4",
    ]


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ("", [0, 0, 0]),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: [1, 1]', [0, 2, 2]),
        ('lr_policy: "plateau" gamma: 0.5', [3, 3, 3]),
    ],
)
def test_current_step_counts_the_steps_of_multistep_and_plateau(fields: str, steps: list[int]) -> None:
    trial = make_trial(fields)
    trial.updater.num_reductions = 3
    assert [trial.updater.current_step(i) for i in range(3)] == steps


def test_rate_of_plateau_falls_with_the_reductions() -> None:
    trial = make_trial('lr_policy: "plateau" gamma: 0.5')
    trial.updater.num_reductions = 2
    assert trial.updater.rate(0) == 0.125
