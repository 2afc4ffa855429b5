from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.solver.update_rules import UPDATE_RULES
from dtrain.core.solver.update_rules.rule import Step
from dtrain.proto import caffe_pb2

RATE = 0.125
START, GRADIENT = np.array([1.0, -2.0, 3.0]), np.array([0.5, 4.0, -1.0])


def run(momentum: float, num_iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """Return data and velocity after so many updates by one and the same gradient."""
    rule = UPDATE_RULES["SGD"](caffe_pb2.SolverParameter(momentum=momentum))
    data, velocity = START.astype(np.float32), np.zeros(3, np.float32)
    for iteration in range(num_iterations):
        rule.apply(data, GRADIENT.astype(np.float32), [velocity], Step(RATE, iteration))
    return data, velocity


def test_sgd_keeps_one_history() -> None:
    assert UPDATE_RULES["SGD"].num_histories == 1


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("num_iterations", [1, 2, 10])
def test_sgd_with_a_constant_gradient_follows_the_geometric_series(
    momentum: float, num_iterations: int
) -> None:
    # v after k updates: rate·g·(1 + μ + … + μ^(k−1)); the data has lost the sum of all v so far
    speeds = [sum(momentum**j for j in range(k)) for k in range(1, num_iterations + 1)]
    data, velocity = run(momentum, num_iterations)
    np.testing.assert_allclose(velocity, RATE * GRADIENT * speeds[-1], rtol=1e-6)
    np.testing.assert_allclose(data, START - RATE * GRADIENT * sum(speeds), rtol=1e-5)


def test_sgd_with_rate_0_still_moves_by_its_velocity() -> None:
    rule = UPDATE_RULES["SGD"](caffe_pb2.SolverParameter(momentum=0.5))
    data, velocity = START.copy(), np.array([2.0, 4.0, 6.0])
    rule.apply(data, GRADIENT.copy(), [velocity], Step(0.0, 0))
    np.testing.assert_array_equal(velocity, [1, 2, 3])
    np.testing.assert_array_equal(data, START - [1, 2, 3])
