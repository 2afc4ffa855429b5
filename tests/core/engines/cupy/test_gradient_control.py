"""Clipping and loss scale on the device, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.cupy.gradient_control import (
    IS_SKIPPED,
    LOSS_SCALE,
    MULTIPLIER,
    NORM,
    NUM_GOOD,
    GradientControl,
)


def run(cupy: Any, control: GradientControl, diff: Any, scale: float = 1.0) -> Any:
    control.run(cupy.asarray(np.asarray(diff, np.float32)), scale)
    return control.control.get()


@pytest.mark.parametrize(
    ("scale", "clip", "norm", "multiplier"),
    [
        (1.0, -1.0, 5.0, 1.0),
        (1.0, 5.0, 5.0, 1.0),
        (1.0, 2.5, 5.0, 0.5),
        (0.25, 2.5, 1.25, 1.0),
        (0.25, 1.0, 1.25, 0.8),
        (1.0, 0.0, 5.0, 0.0),
    ],
)
def test_run_clips_the_norm_of_the_means(
    cupy: Any, scale: float, clip: float, norm: float, multiplier: float
) -> None:
    found = run(cupy, GradientControl(cupy, clip), [2, 1, -2, 4], scale)
    assert found[NORM] == np.float32(norm)
    assert found[MULTIPLIER] == np.float32(multiplier)
    assert not found[IS_SKIPPED]


def test_run_over_many_values_finds_numpy_s_norm(cupy: Any) -> None:
    diff = np.random.default_rng(1).standard_normal(20_000).astype(np.float32)
    expected = np.linalg.norm(diff.astype(np.float64))
    assert run(cupy, GradientControl(cupy), diff)[NORM] == pytest.approx(expected, rel=1e-6)


def test_run_of_the_largest_floats_is_finite(cupy: Any) -> None:
    found = run(cupy, GradientControl(cupy, clip=1.0, growth_interval=10), [3e38] * 4)
    assert not found[IS_SKIPPED]
    assert found[MULTIPLIER] == pytest.approx(1 / 6e38, rel=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_run_of_what_is_not_finite_leaves_out_and_halves_the_loss_scale(cupy: Any, value: float) -> None:
    control = GradientControl(cupy, loss_scale=1024, growth_interval=3)
    found = run(cupy, control, [1, 2, 3, 4, 5, value, 7, 8])
    assert found[IS_SKIPPED]
    assert found[LOSS_SCALE] == 512
    found = run(cupy, control, [512, 0, 0, 0])
    assert not found[IS_SKIPPED]
    assert (found[NORM], found[MULTIPLIER], found[NUM_GOOD]) == (1, 1 / 512, 1)


def test_run_doubles_the_loss_scale_after_the_interval(cupy: Any) -> None:
    control = GradientControl(cupy, loss_scale=8, growth_interval=3)
    found = [run(cupy, control, [1, 1, 1, bad]) for bad in (1, 1, np.nan, 1, 1, 1, 1)]
    assert [each[LOSS_SCALE] for each in found] == [8, 8, 4, 4, 4, 8, 8]
    assert [each[IS_SKIPPED] for each in found] == [0, 0, 1, 0, 0, 0, 0]
    # by the scale that the loss was multiplied by, not by the next one
    assert [each[MULTIPLIER] for each in found] == [1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8]


def test_run_with_a_loss_scale_clips_what_is_left_without_it(cupy: Any) -> None:
    found = run(cupy, GradientControl(cupy, clip=2.5, loss_scale=16), [32, 16, -32, 64])
    assert (found[NORM], found[MULTIPLIER], found[LOSS_SCALE]) == (5, 0.5 / 16, 16)


def test_run_without_an_interval_leaves_nothing_out(cupy: Any) -> None:
    assert not run(cupy, GradientControl(cupy, clip=1), [np.nan, 1, 1, 1])[IS_SKIPPED]
