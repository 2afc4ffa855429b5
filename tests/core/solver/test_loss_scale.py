"""The loss scale by its rules, its part in updates on host and GPU, and whole runs in float16 on a played cuDNN."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.manifest import LossScaleState, read_manifest
from dtrain.core.solver.gpu_updater import GpuUpdater
from dtrain.core.solver.loss_scale import GROWTH_INTERVAL, LARGEST, LossScale
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.nccl import NcclCommunicator
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import run_ranks
from tests.core.solver.small_runs import (
    BATCH_NORM,
    DROPOUT,
    Outcome,
    Recorder,
    SmallRuns,
    assert_same_bits,
    opened,
    outcome_of,
    params_of,
    solve,
)
from tests.core.solver.trials import DB, DW, B, W, make_trial
from tests.played.cudnn import play_cudnn
from tests.played.cupy import play_cupy
from tests.played.nccl import join_nccl

# What is tested is what comes of overflows.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")

FLOAT16 = "dtrain_param { precision: FLOAT16 } display: 0 "


@pytest.mark.parametrize(
    ("before", "is_finite", "after"),
    [
        (LossScaleState(1024, 5, 2), True, LossScaleState(1024, 6, 2)),
        (LossScaleState(1024, 5, 2), False, LossScaleState(512, 0, 3)),
        (LossScaleState(1024, GROWTH_INTERVAL - 1, 2), True, LossScaleState(2048, 0, 2)),
        (LossScaleState(LARGEST, GROWTH_INTERVAL - 1), True, LossScaleState(LARGEST, 0)),
        (LossScaleState(1, 7, 2), False, LossScaleState(1, 0, 3)),
    ],
)
def test_settle_follows_the_rules(before: LossScaleState, is_finite: bool, after: LossScaleState) -> None:
    scale = LossScale(np)
    scale.state = before
    assert scale.settle(is_finite) is is_finite
    assert scale.state == after
    assert scale.array.tolist() == [after.value]


@pytest.mark.parametrize(
    ("fields", "world_size", "dw"),
    [
        ("", 1, DW),
        ("iter_size: 2", 4, DW / 8),
        ("clip_gradients: 1", 1, DW / 5),
        ("clip_gradients: 2", 2, DW / 2 * 0.8),
    ],
)
def test_update_on_the_host_divides_before_it_clips(fields: str, world_size: int, dw: Any) -> None:
    trial = make_trial(fields)
    scale = trial.updater.use_loss_scale(np)
    trial.update(DW * scale[0], DB * scale[0], world_size=world_size)
    np.testing.assert_allclose(trial.w, W - 0.5 * dw, rtol=1e-6, atol=1e-7)
    assert trial.updater.needs_all_gradients


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])  # the last one's square overflows
def test_update_on_the_host_by_what_is_not_finite_is_left_out(bad: float) -> None:
    trial = make_trial("momentum: 0.9 weight_decay: 0.1")
    scale = trial.updater.use_loss_scale(np)
    trial.update(np.array([[bad, 0, 0]]))
    np.testing.assert_array_equal(trial.w, W)
    np.testing.assert_array_equal(trial.b, B)
    assert not any(array.any() for array in trial.updater.history)
    assert trial.updater.loss_scale is not None
    assert trial.updater.loss_scale.state == LossScaleState(2.0**15, 0, 1)
    assert scale.tolist() == [2.0**15]
    trial.update(DW * scale[0], DB * scale[0], iteration=1)
    np.testing.assert_allclose(trial.w, W - 0.5 * (DW + 0.1 * W), rtol=1e-6)


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play a GPU with cuDNN."""
    play_cudnn(monkeypatch)


def observed(
    path: str, start: Callable[[Solver], object] = lambda solver: None, max_iter: int | None = None
) -> Callable[[Communicator], tuple[Outcome, list[LossScaleState]]]:
    """Return the body that runs `start`, then solves; it returns the outcome and the loss scales' states."""

    def body(communicator: Communicator) -> tuple[Outcome, list[LossScaleState]]:
        states: list[LossScaleState] = []
        recorder = Recorder(after=lambda solver: states.append(state_of(solver)))
        with opened(path, communicator, recorder, "cudnn") as solver:
            start(solver)
            solver.solve()
            return outcome_of(solver, recorder), states

    return body


def state_of(solver: Solver) -> LossScaleState:
    assert solver.updater.loss_scale is not None
    return solver.updater.loss_scale.state


def set_scale(value: float) -> Callable[[Solver], None]:
    """Return what lets a run go on from another loss scale."""

    def start(solver: Solver) -> None:
        assert solver.updater.loss_scale is not None
        solver.updater.loss_scale.state = LossScaleState(value)

    return start


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize(
    ("fields", "middle"),
    [
        ("", BATCH_NORM),
        ("clip_gradients: 0.5 iter_size: 2", ""),
        ('type: "Adam" momentum: 0.9 base_lr: 0.01', DROPOUT),
    ],
)
def test_run_on_a_gpu_in_16_bits_trains_as_in_float32(runs: SmallRuns, fields: str, middle: str) -> None:
    outcomes = {}
    for precision in ("FLOAT32", "FLOAT16", "BF16"):
        path = runs.write(f"{fields} dtrain_param {{ precision: {precision} }}", middle=middle)
        outcomes[precision] = solve(path, engine="cudnn")(SingleCommunicator())
    exact = outcomes["FLOAT32"]
    assert exact.losses[-1] < 0.3 * exact.losses[0]
    # 11 and 8 bits: of each value 5e-4 and 4e-3, which twenty updates make more of
    for precision, bound in (("FLOAT16", 5e-3), ("BF16", 4e-2)):
        mine = outcomes[precision]
        np.testing.assert_allclose(mine.losses, exact.losses, rtol=bound, atol=bound * exact.losses[0])
        for name in ("conv.0", "ip.0"):
            # Adam takes steps of one size by gradients of no size, so single values may be anywhere.
            off = np.linalg.norm(mine.params[name] - exact.params[name])
            assert off < 4 * bound * np.linalg.norm(exact.params[name])
        assert all(values.dtype == np.float32 for values in mine.params.values())  # the masters
        assert len(set(np.unique(mine.params["ip.0"].view(np.uint32) & 0x1FFF))) > 1  # of more than 11 bits


@pytest.mark.usefixtures("cudnn")
def test_run_on_a_gpu_whose_gradients_overflow_leaves_updates_out_and_goes_on(runs: SmallRuns) -> None:
    path = runs.write(FLOAT16)

    def burst(solver: Solver) -> None:
        # In the middle the scale is put where nothing but an overflow can come of it.
        if solver.iter == 5:
            set_scale(2.0**24)(solver)

    states: list[LossScaleState] = []
    params: list[dict[str, Any]] = []

    def after(solver: Solver) -> None:
        burst(solver)
        states.append(state_of(solver))
        params.append(params_of(solver))

    recorder = Recorder(after=after)
    with opened(path, SingleCommunicator(), recorder, "cudnn") as solver:
        assert isinstance(solver.updater, GpuUpdater)
        solver.solve()
        num_left_out = states[-1].num_left_out
        assert 1 <= num_left_out < 12
        assert states[-1].value == 2.0 ** (24 - num_left_out)
        for k in range(6, len(states)):  # exactly those updates changed nothing
            is_left_out = states[k].num_left_out > states[k - 1].num_left_out
            same = all((params[k][name] == params[k - 1][name]).all() for name in params[k])
            assert same == is_left_out
        assert solver.iter == 20
    assert np.isfinite(recorder.losses).all()
    assert recorder.losses[-1] < 0.2 * recorder.losses[0]


@pytest.mark.usefixtures("cudnn")
def test_run_on_a_gpu_at_a_larger_scale_gives_the_same_params(runs: SmallRuns) -> None:
    # As long as nothing is too small or too large, a power of two changes exponents alone.
    path = runs.write(FLOAT16 + "max_iter: 4")
    (less, _), (more, _) = (
        observed(path, set_scale(scale))(SingleCommunicator()) for scale in (2.0**14, 2.0**15)
    )
    for name, values in less.params.items():
        np.testing.assert_allclose(more.params[name], values, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("cudnn")
def test_run_on_a_gpu_in_float16_resumes_to_the_same_bits_and_the_same_scale(runs: SmallRuns) -> None:
    path = runs.write(FLOAT16 + "snapshot: 6 max_iter: 12 clip_gradients: 3", middle=DROPOUT)
    whole, states = observed(path, set_scale(2.0**24))(SingleCommunicator())
    assert states[5].num_left_out > 0
    kept = read_manifest(runs.folder / "run_iter_6.manifest.json").loss_scale
    assert kept == states[5]
    resumed, later = observed(path, lambda solver: solver.restore(str(runs.state(6))))(SingleCommunicator())
    assert later == states[6:]
    assert resumed.losses == whole.losses[6:]
    assert_same_bits(resumed, whole)


@pytest.mark.usefixtures("cudnn")
def test_run_on_a_gpu_as_graphs_has_the_scales_and_the_bits_of_one_without(runs: SmallRuns) -> None:
    path = runs.write(FLOAT16 + "max_iter: 12 clip_gradients: 3 iter_size: 2", middle=DROPOUT)

    def start(solver: Solver) -> None:
        solver.capture()
        set_scale(2.0**24)(solver)

    (eager, states), (captured, others) = (
        observed(path, begin)(SingleCommunicator()) for begin in (set_scale(2.0**24), start)
    )
    assert states == others
    assert states[-1].num_left_out > states[3].num_left_out > 0  # before the capture and after it
    assert captured.losses == eager.losses
    assert_same_bits(captured, eager)


@pytest.mark.usefixtures("cudnn")
def test_ranks_on_two_gpus_as_graphs_have_the_same_scales(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    join_nccl(monkeypatch, play_cupy(monkeypatch, num_devices=2))
    path = runs.write(FLOAT16 + "max_iter: 9")

    def train(captures: bool) -> list[tuple[Outcome, list[LossScaleState]]]:
        def start(solver: Solver) -> None:
            assert isinstance(solver.updater, GpuUpdater)
            solver.iteration.captures = captures
            set_scale(2.0**22)(solver)

        return run_ranks(2, lambda host: observed(path, start)(NcclCommunicator(host)))

    captured, eager = train(True), train(False)
    expected = eager[0][1]
    assert expected[-1].num_left_out > expected[3].num_left_out
    assert [states for _, states in captured + eager] == [expected] * 4
    assert_same_bits(captured[0][0], eager[0][0])


@pytest.mark.usefixtures("cudnn")
def test_snapshot_of_a_gpu_in_float32_is_taken_up_with_a_fresh_scale(runs: SmallRuns) -> None:
    solve(runs.write("snapshot: 6 max_iter: 6"), engine="cudnn")(SingleCommunicator())
    path = runs.write(FLOAT16 + "max_iter: 8")
    _, states = observed(path, lambda solver: solver.restore(str(runs.state(6))))(SingleCommunicator())
    assert states == [LossScaleState(num_finite=1), LossScaleState(num_finite=2)]


@pytest.mark.usefixtures("cudnn")
def test_ranks_on_a_gpu_in_float16_have_the_same_scale_though_one_overflows(runs: SmallRuns) -> None:
    path = runs.write(FLOAT16 + "max_iter: 6", batch_size=4)

    def body(communicator: Communicator) -> tuple[Outcome, list[LossScaleState]]:
        def spoil(solver: Solver) -> None:
            def ready() -> None:
                if communicator.rank == 1 and solver.iter == 2:
                    solver.net.params["ip"][0].diff[0, 0] = np.inf

            solver.callbacks.append((lambda: None, ready))

        return observed(path, spoil)(communicator)

    (mine, states), (others, other_states) = run_ranks(2, body)
    assert states == other_states
    assert [state.num_left_out for state in states] == [0, 0, 1, 1, 1, 1]
    assert states[-1] == LossScaleState(2.0**15, 3, 1)
    for name, values in mine.params.items():
        np.testing.assert_array_equal(values, others.params[name])


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("name", ["SGD", "LARS"])
def test_update_on_the_gpu_is_the_host_s(runs: SmallRuns, name: str) -> None:
    # LARS has no kernel: the host looks after its scale.
    path = runs.write(FLOAT16 + f'type: "{name}" max_iter: 6 clip_gradients: 0.4')
    alone, states = observed(path, set_scale(2.0**20))(SingleCommunicator())

    def start(solver: Solver) -> None:
        assert not isinstance(solver.updater, GpuUpdater)
        set_scale(2.0**20)(solver)

    ((on_host, host_states),) = run_ranks(1, observed(path, start))
    assert states == host_states
    assert states[-1].num_left_out > 0
    for param, values in alone.params.items():
        np.testing.assert_allclose(on_host.params[param], values, rtol=1e-3, atol=1e-5)


def test_use_non_finite_leaves_out_on_the_gpu_and_keeps_the_scale(runs: SmallRuns, cudnn: None) -> None:
    path = runs.write(FLOAT16 + "momentum: 0.9")
    with opened(path, SingleCommunicator(), engine="cudnn") as solver:
        updater = solver.updater
        assert isinstance(updater, GpuUpdater)
        flag = solver.engine.xp.zeros(1, np.float32)
        updater.use_non_finite(flag)
        solver.step(2)
        before, history, state = params_of(solver), updater.history[0].get(), state_of(solver)
        flag.fill(1)
        solver.net.forward()
        solver.net.backward()
        updater.apply(2, 1)
        for name, values in params_of(solver).items():
            np.testing.assert_array_equal(values, before[name])
        np.testing.assert_array_equal(updater.history[0].get(), history)
        assert state_of(solver) == state
        flag.fill(0)
        updater.apply(2, 1)
        assert state_of(solver) == replace(state, num_finite=state.num_finite + 1)
        assert (params_of(solver)["ip.0"] != before["ip.0"]).any()


@pytest.mark.usefixtures("cudnn")
def test_display_shows_the_scale_and_warns_at_its_end(
    runs: SmallRuns, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with opened(
        runs.write("dtrain_param { precision: FLOAT16 } display: 2"), SingleCommunicator(), engine="cudnn"
    ) as solver:
        solver.step(3)
        assert caplog.messages.count("    Loss scale = 65536, updates left out: 0") == 2
        caplog.clear()
        solver.display.show_loss_scale(LossScaleState(1.0, 0, 40))
        assert "gradients must be finite, got others at the smallest loss scale too" in caplog.messages[1]
        assert caplog.records[1].levelno == logging.WARNING


def test_stale_gradients_in_float16_are_refused(runs: SmallRuns) -> None:
    path = runs.write("dtrain_param { precision: FLOAT16 stale_gradients: true }")
    with pytest.raises(
        UserError, match=r"stale_gradients must be false with precision FLOAT16, got true; use BF16"
    ):
        read_recipe(path)
    assert read_recipe(path, precision="BF16").precision == "BF16"


@pytest.mark.parametrize("engine", ["reference", "onednn"])
def test_engine_of_a_cpu_refuses_float16_and_names_one_that_can(runs: SmallRuns, engine: str) -> None:
    with (
        pytest.raises(
            UserError,
            match=rf"engine {engine}: precision must be .*, got FLOAT16; FLOAT16 needs engine cudnn",
        ),
        opened(runs.write(FLOAT16), SingleCommunicator(), engine=engine),
    ):
        pass
