"""The LSTM cell: what its four gates do at one time step, forward and backward.

LSTM takes this step for each of its times, LSTMUnit takes one. Arrays end in the axes (4, H) for the gates, in
Caffe's order i, f, o, g, and in (H) for all else; H is the number of hidden units and c_in the cell before, where
the sequence goes on, else 0:

    i, f, o = sigmoid(sums)    g = tanh(sums)    c = f·c_in + i·g    h = o·tanh(c)

Follows caffe's lstm_unit_layer.cpp.
"""

from __future__ import annotations

from typing import Any

NUM_GATES = 4
INPUT, FORGET, OUTPUT, CANDIDATE = range(NUM_GATES)


def activate_gates(xp: Any, gates: Any) -> None:
    """Turn the gates' sums into their values, in place."""
    sigmoids = gates[..., :CANDIDATE, :]
    sigmoids *= 0.5
    xp.tanh(gates, out=gates)
    sigmoids *= 0.5  # sigmoid(s) = (1 + tanh(s / 2)) / 2, which overflows nowhere
    sigmoids += 0.5


def next_cell(gates: Any, cell_in: Any) -> Any:
    """Return c = f·c_in + i·g."""
    cell = gates[..., FORGET, :] * cell_in
    cell += gates[..., INPUT, :] * gates[..., CANDIDATE, :]
    return cell


def differentiate_gates(xp: Any, gates: Any, cell_in: Any, tanh_cell: Any) -> tuple[Any, Any]:
    """Return the derivatives of h by c, and by the gates' sums: those of c by i, f, g and of h by o."""
    i, f, o, g = (gates[..., k, :] for k in range(NUM_GATES))
    by_sums = xp.empty_like(gates)
    by_sums[..., INPUT, :] = g * i * (1 - i)
    by_sums[..., FORGET, :] = cell_in * f * (1 - f)
    by_sums[..., OUTPUT, :] = tanh_cell * o * (1 - o)
    by_sums[..., CANDIDATE, :] = i * (1 - g * g)
    return o * (1 - tanh_cell * tanh_cell), by_sums


def backward_step(by_cell: Any, by_sums: Any, cell_diff: Any, hidden_diff: Any) -> None:
    """Take one step's gradients of c and h back, in place.

    by_cell, by_sums: the step's derivatives; by_sums becomes the gradient of the gates' sums. cell_diff: what
    reaches c from later on; takes in what reaches it through h.
    """
    cell_diff += hidden_diff * by_cell
    output_diff = by_sums[..., OUTPUT, :] * hidden_diff
    by_sums *= cell_diff[..., None, :]
    by_sums[..., OUTPUT, :] = output_diff
