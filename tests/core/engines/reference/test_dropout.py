from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.operations import DropoutSpec


@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_forward_and_backward_multiply_by_one_mask(rig: Any, in_place: bool) -> None:
    shape = (4, 3, 5)
    x, y_diff = 1 + np.abs(rig.normal(*shape)), rig.normal(*shape)
    x_blob = rig.blob(x)
    y_blob = x_blob if in_place else rig.void(shape)
    operation = rig.engine.create(DropoutSpec(shape, 0.4, 1 / 0.6))
    operation.forward(x_blob, y_blob, np.random.default_rng(1))
    is_kept = y_blob.data != 0
    assert 0 < is_kept.sum() < is_kept.size
    rig.expect(y_blob.data, x * is_kept / 0.6)
    y_blob.diff[...] = y_diff
    operation.backward(x_blob, y_blob)
    rig.expect(x_blob.diff, y_diff * is_kept / 0.6)


def draw(rig: Any, ratio: float, seed: int, count: int = 40_000) -> Any:
    y = rig.void((count,))
    operation = rig.engine.create(DropoutSpec((count,), ratio, 1.0))
    operation.forward(rig.blob(np.ones(count)), y, np.random.default_rng(seed))
    return y.data


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_dropout_drops_the_given_part(rig: Any, ratio: float) -> None:
    # five standard deviations of a mean of 40,000 Bernoulli draws
    assert abs(1 - draw(rig, ratio, seed=2).mean() - ratio) < 5 * (ratio * (1 - ratio) / 40_000) ** 0.5


def test_dropout_of_ratio_zero_keeps_all(rig: Any) -> None:
    assert draw(rig, 0.0, seed=3).all()


def test_dropout_mask_depends_on_the_generator_alone(rig: Any) -> None:
    assert (draw(rig, 0.5, seed=4) == draw(rig, 0.5, seed=4)).all()
    assert (draw(rig, 0.5, seed=4) != draw(rig, 0.5, seed=5)).any()


def test_dropout_forward_twice_draws_two_masks(rig: Any) -> None:
    random, x, y = np.random.default_rng(6), rig.blob(np.ones(64)), rig.void((64,))
    operation = rig.engine.create(DropoutSpec((64,), 0.5, 1.0))
    operation.forward(x, y, random)
    first = y.data.copy()
    operation.forward(x, y, random)
    assert (y.data != first).any()
