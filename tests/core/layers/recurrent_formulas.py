"""The recurrent layers as plain as can be: one stream and one time step after the other, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def lstm_step(sums: Array, cell: Array, cont: float) -> tuple[Array, Array]:
    """Return c and h (H) of one stream from its gates' sums (4H) and the cell before (H)."""
    size = len(cell)
    new_cell, hidden = np.zeros(size), np.zeros(size)
    for d in range(size):
        i, f, o = (sigmoid(sums[k * size + d]) for k in range(3))
        g = math.tanh(sums[3 * size + d])
        new_cell[d] = cont * f * cell[d] + i * g
        hidden[d] = o * math.tanh(new_cell[d])
    return new_cell, hidden


def lstm_unit(cell: Array, sums: Array, cont: Array) -> tuple[Array, Array]:
    new_cell, hidden = np.zeros(cell.shape), np.zeros(cell.shape)
    for n in range(cell.shape[1]):
        new_cell[0, n], hidden[0, n] = lstm_step(sums[0, n], cell[0, n], cont[0, n])
    return new_cell, hidden


def lstm_states(
    x: Array, cont: Array, static: Array | None, initial: tuple[Array, Array], params: tuple[Array, ...]
) -> tuple[Array, Array, Array]:
    """Return h (T, N, H), h_T and c_T (1, N, H); params as in the layer, static None if there is none."""
    weight, bias, *static_weight, hidden_weight = params
    num_steps, num_streams = cont.shape
    y = np.zeros((num_steps, num_streams, hidden_weight.shape[1]))
    last_h, last_c = np.zeros((1, *y.shape[1:])), np.zeros((1, *y.shape[1:]))
    for n in range(num_streams):
        h, c = initial[0][0, n], initial[1][0, n]
        for t in range(num_steps):
            sums = weight @ x[t, n].ravel() + bias + hidden_weight @ (cont[t, n] * h)
            if static is not None:
                sums = sums + static_weight[0] @ static[n].ravel()
            c, h = lstm_step(sums, c, cont[t, n])
            y[t, n] = h
        last_h[0, n], last_c[0, n] = h, c
    return y, last_h, last_c


def rnn_states(
    x: Array, cont: Array, static: Array | None, initial: Array, params: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Return o (T, N, H) and h_T (1, N, H); params as in the layer, static None if there is none."""
    weight, bias, *static_weight, hidden_weight, output_weight, output_bias = params
    num_steps, num_streams = cont.shape
    y = np.zeros((num_steps, num_streams, len(bias)))
    last = np.zeros((1, *y.shape[1:]))
    for n in range(num_streams):
        h = initial[0, n]
        for t in range(num_steps):
            sums = weight @ x[t, n].ravel() + bias + hidden_weight @ (cont[t, n] * h)
            if static is not None:
                sums = sums + static_weight[0] @ static[n].ravel()
            h = np.array([math.tanh(value) for value in sums])
            y[t, n] = [math.tanh(value) for value in output_weight @ h + output_bias]
        last[0, n] = h
    return y, last


def zeros(x: Array, hidden_weight: Array) -> Array:
    return np.zeros((1, x.shape[1], hidden_weight.shape[1]))


def lstm(x: Array, cont: Array, *params: Array) -> Array:
    start = zeros(x, params[-1])
    return lstm_states(x, cont, None, (start, start), params)[0]


def lstm_static(x: Array, cont: Array, static: Array, *params: Array) -> Array:
    start = zeros(x, params[-1])
    return lstm_states(x, cont, static, (start, start), params)[0]


def lstm_exposed(x: Array, cont: Array, h: Array, c: Array, *params: Array) -> tuple[Array, ...]:
    return lstm_states(x, cont, None, (h, c), params)


def lstm_static_exposed(
    x: Array, cont: Array, static: Array, h: Array, c: Array, *params: Array
) -> tuple[Array, ...]:
    return lstm_states(x, cont, static, (h, c), params)


def rnn(x: Array, cont: Array, *params: Array) -> Array:
    return rnn_states(x, cont, None, zeros(x, params[-2]), params)[0]


def rnn_static(x: Array, cont: Array, static: Array, *params: Array) -> Array:
    return rnn_states(x, cont, static, zeros(x, params[-2]), params)[0]


def rnn_exposed(x: Array, cont: Array, h: Array, *params: Array) -> tuple[Array, ...]:
    return rnn_states(x, cont, None, h, params)


def rnn_static_exposed(x: Array, cont: Array, static: Array, h: Array, *params: Array) -> tuple[Array, ...]:
    return rnn_states(x, cont, static, h, params)
