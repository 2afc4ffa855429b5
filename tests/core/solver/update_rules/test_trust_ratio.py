from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Step
from dtrain.core.solver.update_rules.trust_ratio import norms_to_compare
from dtrain.proto import caffe_pb2

W = [[3.0, 0.0], [0.0, 4.0]]  # |w| = 5


@pytest.mark.parametrize(
    ("data", "change", "norms"),
    [
        (W, [[1.0, -1.0], [1.0, -1.0]], (5, 2)),
        ([[[3.0]], [[4.0]]], [[[0.0]], [[2.0]]], (5, 2)),
        ([3.0, 4.0], [1.0, 1.0], None),  # a bias
        (3.0, 1.0, None),
        ([[0.0, 0.0]], [[1.0, 1.0]], None),
        ([[1.0, 1.0]], [[0.0, 0.0]], None),
    ],
)
def test_norms_to_compare_are_those_of_weights_that_are_not_zero(
    data: object, change: object, norms: tuple[float, float] | None
) -> None:
    assert norms_to_compare(np.array(data), np.array(change)) == norms


def run(fields: str, data: object, diff: object, step: Step) -> np.ndarray:
    """Return what one update takes off."""
    solver = text_format.Parse(fields, caffe_pb2.SolverParameter())
    rule = UPDATE_RULES[solver.type](solver)
    before, values = np.array(data), np.array(data)
    rule.apply(values, np.array(diff), [np.zeros(before.shape) for _ in range(rule.num_histories)], step)
    return before - values


LARS = 'type: "LARS" delta: 0.5 dtrain_param { trust_coefficient: 0.25 }'
G = np.array([[2.0, -2.0], [2.0, 2.0]])  # |g| = 4


def test_lars_makes_steps_that_suit_weight_and_gradient() -> None:
    # 0.25·5 / (4 + 0.1·5 + 0.5) = 0.25
    taken = run(LARS, W, G, Step(rate=2.0, iteration=0, decay=0.1))
    np.testing.assert_allclose(taken, 2.0 * 0.25 * (G + 0.1 * np.array(W)), rtol=1e-12)


@pytest.mark.parametrize(("data", "diff"), [([3.0, 4.0], [2.0, 1.0]), ([[0.0, 0.0]], [[2.0, 1.0]])])
def test_lars_without_norms_to_compare_is_sgd(data: object, diff: object) -> None:
    taken = run(LARS, data, diff, Step(rate=2.0, iteration=0, decay=0.1))
    np.testing.assert_allclose(taken, 2.0 * (np.array(diff) + 0.1 * np.array(data)), rtol=1e-12)


LAMB = 'type: "LAMB" momentum: 0.5 momentum2: 0.75 delta: 0'


def test_lamb_at_first_makes_steps_of_the_sign_as_long_as_the_weight() -> None:
    # m / (1 − β1) = g and √(v / (1 − β2)) = |g|: u = sign(g), |u| = 2
    taken = run(LAMB, W, G, Step(rate=0.5, iteration=0))
    np.testing.assert_allclose(taken, 0.5 * (5 / 2) * np.sign(G), rtol=1e-6)


def test_lamb_with_decay_turns_towards_zero() -> None:
    taken = run(LAMB, W, G, Step(rate=0.5, iteration=0, decay=0.5))
    direction = np.sign(G) + 0.5 * np.array(W)
    np.testing.assert_allclose(taken, 0.5 * 5 / np.linalg.norm(direction) * direction, rtol=1e-6)


def test_lamb_without_norms_to_compare_is_adam() -> None:
    taken = run(LAMB, [3.0, 4.0], [2.0, -1.0], Step(rate=0.5, iteration=0, decay=0.25))
    np.testing.assert_allclose(taken, 0.5 * (np.array([1.0, -1.0]) + 0.25 * np.array([3.0, 4.0])), rtol=1e-6)
