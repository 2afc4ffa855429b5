"""The LSTM cell on arrays of several axes, against scalars in a loop and central differences."""

from __future__ import annotations

import numpy as np

from dtrain.core.layers.parts.lstm_cell import (
    activate_gates,
    backward_step,
    differentiate_gates,
    next_cell,
)
from tests.core.layers.recurrent_formulas import Array, lstm_step

STEP = 1e-6
RANDOM = np.random.default_rng(3)
SUMS, CELL_IN = RANDOM.standard_normal((2, 3, 4, 5)), RANDOM.standard_normal((2, 3, 5))


def run(sums: Array, cell_in: Array) -> tuple[Array, Array, Array]:
    """Return the gates' values, c and h."""
    gates = sums.copy()
    activate_gates(np, gates)
    cell = next_cell(gates, cell_in)
    return gates, cell, gates[..., 2, :] * np.tanh(cell)


def test_lstm_cell_of_many_streams_is_that_of_each() -> None:
    _, cell, hidden = run(SUMS, CELL_IN)
    for place in np.ndindex(2, 3):
        expected = lstm_step(SUMS[place].ravel(), CELL_IN[place], 1.0)
        np.testing.assert_allclose([cell[place], hidden[place]], expected, rtol=1e-12)


def test_activate_gates_far_out_is_exact_and_warns_not() -> None:
    gates = np.full((4, 2), 1e4, np.float32) * np.array([-1, 1], np.float32)
    with np.errstate(all="raise"):
        activate_gates(np, gates)
    np.testing.assert_array_equal(gates, [[0, 1], [0, 1], [0, 1], [-1, 1]])


def test_backward_step_is_the_slope_of_c_and_h() -> None:
    random = np.random.default_rng(4)
    by_c, by_h, direction = (random.standard_normal(shape) for shape in ((2, 3, 5), (2, 3, 5), SUMS.shape))

    def objective(sums: Array) -> float:
        _, cell, hidden = run(sums, CELL_IN)
        return float((by_c * cell + by_h * hidden).sum())

    slope = (objective(SUMS + STEP * direction) - objective(SUMS - STEP * direction)) / (2 * STEP)
    gates, cell, _ = run(SUMS, CELL_IN)
    by_cell, sums_diff = differentiate_gates(np, gates, CELL_IN, np.tanh(cell))
    cell_diff = by_c.copy()
    backward_step(by_cell, sums_diff, cell_diff, by_h)
    np.testing.assert_allclose((sums_diff * direction).sum(), slope, rtol=1e-7)
    np.testing.assert_allclose(cell_diff, by_c + by_h * gates[..., 2, :] * (1 - np.tanh(cell) ** 2))
