"""Updates by given gradients, and gradient descent on least squares, against their closed forms."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.core.net.arena import Arena
from dtrain.core.net.net import Net
from dtrain.core.net.params import trainable
from dtrain.core.solver import updater
from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.updater import Updater
from dtrain.dist.single import SingleCommunicator
from dtrain.proto import caffe_pb2
from tests.core.net_builder import inputs, make_net
from tests.core.solver.small_runs import SmallRuns, opened, params_of

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


@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_in_pieces_is_the_same_as_on_the_whole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for piece_size in (1000, 3):
        monkeypatch.setattr(updater, "PIECE_SIZE", piece_size)
        trial = make_trial(f'type: "{name}" weight_decay: 0.5', text=WIDE, fill=False)
        results.append(results_of(trial))
    for whole, pieced in zip(*results, strict=True):
        np.testing.assert_array_equal(whole, pieced)


@pytest.mark.parametrize("fields", ["weight_decay: 0.5 iter_size: 3", "clip_gradients: 0.7"])
@pytest.mark.parametrize("name", list(UPDATE_RULES))
def test_apply_on_any_number_of_threads_is_the_same_to_the_last_bit(
    name: str, fields: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 3)
    monkeypatch.setattr(updater, "SHARED_SIZE", 0)
    results = [
        results_of(make_trial(f'type: "{name}" {fields}', text=WIDE, fill=False, num_threads=num_threads))
        for num_threads in (1, 2, 3, 7)
    ]
    assert np.any(results[0][0])
    for of_several in results[1:]:
        for one, other in zip(results[0], of_several, strict=True):
            np.testing.assert_array_equal(one, other)


def meet_in_apply(trial: Trial, monkeypatch: pytest.MonkeyPatch, num_threads: int) -> None:
    """Let the rule wait until so many threads are in it at once."""
    meeting, apply = threading.Barrier(num_threads), trial.updater.rule.apply

    def wait_and_apply(*args: object) -> None:
        meeting.wait(timeout=60)
        apply(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(trial.updater.rule, "apply", wait_and_apply)


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("worker")}


@pytest.mark.parametrize(("name", "piece_size", "num_threads"), [("SGD", 5, 4), ("LARS", 1000, 2)])
def test_apply_of_enough_values_shares_the_pieces_or_params_among_threads(
    name: str, piece_size: int, num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", piece_size)
    monkeypatch.setattr(updater, "SHARED_SIZE", 40)  # of w and b together
    monkeypatch.setenv("OMP_NUM_THREADS", str(num_threads))
    trial = make_trial(f'type: "{name}"', text=WIDE, fill=False)
    others = workers()
    meet_in_apply(trial, monkeypatch, num_threads)  # 35 / 5 + 5 / 5 = 8 pieces, or 2 params
    trial.update(DWIDE, DWIDE_B)
    assert len(workers() - others) == num_threads - 1
    np.testing.assert_allclose(trial.b, -0.5 * DWIDE_B, rtol=1e-6)  # one axis: LARS treats it as SGD does
    trial.updater.close()
    assert workers() <= others


def test_solver_on_several_threads_takes_the_same_way_and_ends_them(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 7)
    monkeypatch.setattr(updater, "SHARED_SIZE", 100)
    path, others, trained = runs.write("clip_gradients: 0.5"), workers(), []
    for num_threads in (1, 3):
        monkeypatch.setenv("OMP_NUM_THREADS", str(num_threads))
        with opened(path, SingleCommunicator()) as solver:
            solver.step(4)
            trained.append([*params_of(solver).values(), *solver.updater.history])
            assert bool(workers() - others) == (num_threads > 1)
        assert workers() <= others
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


def test_apply_of_few_values_starts_no_thread() -> None:
    others = workers()
    trial = make_trial("clip_gradients: 1", text=WIDE, fill=False, num_threads=4)
    trial.update(DWIDE, DWIDE_B)
    assert workers() <= others


def test_updater_that_nobody_holds_ends_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updater, "PIECE_SIZE", 5)
    monkeypatch.setattr(updater, "SHARED_SIZE", 0)
    others = workers()
    trial = make_trial("", text=WIDE, fill=False, num_threads=3)
    trial.update(DWIDE, DWIDE_B)
    started = workers() - others
    assert started
    del trial
    for thread in started:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_apply_counts_the_gradient_of_a_fixed_param_in_the_norm_under_force_backward() -> None:
    text = f"force_backward: true {least_squares('param { lr_mult: 0 }')}"
    trial = make_trial("clip_gradients: 1", text=text)
    trial.update()
    np.testing.assert_array_equal(trial.w, W)
    np.testing.assert_allclose(trial.b, B - 0.5 * DB / 5, rtol=1e-6)  # 5: with the 3 of DW


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
