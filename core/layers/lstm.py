"""LSTM: a recurrent layer that remembers in cells behind gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.lstm_cell import (
    FORGET,
    NUM_GATES,
    OUTPUT,
    activate_gates,
    backward_step,
    differentiate_gates,
    next_cell,
)
from dtrain.core.layers.parts.recurrence import RecurrentLayer


@LAYERS.register("LSTM")
class LSTM(RecurrentLayer):
    """Bottoms: x (T, N, …), cont (T, N), perhaps static (N, …), with expose_hidden h_0 and c_0 (1, N, H).
    Tops: h (T, N, H), with expose_hidden h_T and c_T (1, N, H). For each step t, gates in the order i, f, o, g:

        sums = W_xc·x_t + b_c + W_xc_static·static + W_hc·(cont_t·h_{t−1})
        i, f, o = sigmoid(sums), g = tanh(sums)
        c_t = f·(cont_t·c_{t−1}) + i·g        h_t = o·tanh(c_t)

    Params: W_xc (4H, I), b_c (4H), W_xc_static (4H, S) if there is a static bottom, W_hc (4H, H). State from
    batch to batch, and what may change: see RecurrentLayer. Follows caffe's lstm_layer.cpp.
    """

    messages = ("recurrent_param",)
    bottoms = Arity(2, 5)
    tops = Arity(1, 3)
    states = ("h", "c")
    num_gates = NUM_GATES

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError if the bottoms don't fit each other or the params."""
        super().reshape(bottom, top)
        self.gates = self.sums.reshape(*self.sums.shape[:2], NUM_GATES, self.num_hidden)
        self.cell_in = self.xp.empty_like(self.hidden_in)  # c_{t-1}·cont_t
        self.tanh_cell = self.xp.empty_like(self.hidden_in)

    def run_steps(self, initial: Sequence[Any], cont: Any, output: Any) -> Sequence[Any]:
        """Take all steps; return h_T and c_T."""
        weight = self.read_param(self.hidden_weight).T
        hidden, cell = initial
        for t in range(len(cont)):
            gates = self.gates[t]
            self.xp.multiply(hidden, cont[t], out=self.hidden_in[t])
            self.xp.multiply(cell, cont[t], out=self.cell_in[t])
            self.sums[t] += self.engine.matmul(self.hidden_in[t], weight)
            activate_gates(self.xp, gates)
            cell = next_cell(gates, self.cell_in[t])
            self.xp.tanh(cell, out=self.tanh_cell[t])
            self.xp.multiply(gates[:, OUTPUT], self.tanh_cell[t], out=output[t])
            hidden = output[t]
        return hidden, cell

    def run_steps_back(self, output_diff: Any, cont: Any) -> Any:
        """Return the gradient of the gates' sums, from the last step to the first."""
        weight = self.read_param(self.hidden_weight)
        by_cell, by_sums = differentiate_gates(self.xp, self.gates, self.cell_in, self.tanh_cell)
        sums_diff = by_sums.reshape(self.sums.shape)
        by_cell_before = self.gates[:, :, FORGET] * cont
        cell_diff, hidden_diff = self.xp.zeros_like(output_diff[-1]), output_diff[-1]
        for t in reversed(range(len(cont))):
            backward_step(by_cell[t], by_sums[t], cell_diff, hidden_diff)
            if t:
                cell_diff *= by_cell_before[t]
                hidden_diff = self.engine.matmul(sums_diff[t], weight)
                hidden_diff *= cont[t]
                hidden_diff += output_diff[t - 1]
        return sums_diff
