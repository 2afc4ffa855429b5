"""LSTMUnit: one step of an LSTM, from its gates' sums on."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import LAYERS, Arity, Layer
from dtrain.core.layers.parts.lstm_cell import (
    FORGET,
    NUM_GATES,
    OUTPUT,
    activate_gates,
    backward_step,
    differentiate_gates,
    next_cell,
)
from dtrain.core.layers.parts.shapes import name_bottom


@LAYERS.register("LSTMUnit")
class LSTMUnit(Layer):
    """Bottoms: c_prev (1, N, H), the gates' sums (1, N, 4H) in the order i, f, o, g, cont (1, N). Tops: c and h,
    both (1, N, H):

        i, f, o = sigmoid(sums), g = tanh(sums)        c = f·(cont·c_prev) + i·g        h = o·tanh(c)

    Follows caffe's lstm_unit_layer.cpp.
    """

    bottoms = Arity(3, 3)
    tops = Arity(2, 2)
    no_gradient_bottoms = (2,)
    needs_whole_batches = True

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Give the tops the shape of c_prev. Raises UserError if the bottoms don't fit each other."""
        shape = bottom[0].shape
        if len(shape) != 3 or shape[0] != 1:
            raise UserError(f"{name_bottom(self, 0)}, the cell before, must be (1, N, H), got shape {shape}")
        _, num_streams, num_hidden = shape
        rules = ((1, "the gates' sums", (*shape[:2], NUM_GATES * num_hidden)), (2, "cont", shape[:2]))
        for i, what, expected in rules:
            if bottom[i].shape != expected:
                raise UserError(
                    f"{name_bottom(self, i)}, {what}, must have shape {expected} for a cell of {shape}, "
                    f"got {bottom[i].shape}"
                )
        for blob in top:
            blob.reshape(*shape)
        self.gates = self.xp.empty((1, num_streams, NUM_GATES, num_hidden), bottom[0].dtype)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute c and h."""
        cell_before, sums, cont = (blob.read_data(self.memory) for blob in bottom)
        self.gates[...] = sums.reshape(self.gates.shape)
        activate_gates(self.xp, self.gates)
        self.cell_in = cell_before * cont[..., None]
        cell = next_cell(self.gates, self.cell_in)
        self.tanh_cell = self.xp.tanh(cell)
        top[0].write_data(self.memory)[...] = cell
        self.xp.multiply(self.gates[:, :, OUTPUT], self.tanh_cell, out=top[1].write_data(self.memory))

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the gradients of c_prev and of the gates' sums."""
        if not any(propagate_down):
            return
        by_cell, sums_diff = differentiate_gates(self.xp, self.gates, self.cell_in, self.tanh_cell)
        cell_diff = top[0].read_diff(self.memory).copy()
        backward_step(by_cell, sums_diff, cell_diff, top[1].read_diff(self.memory))
        if propagate_down[0]:
            cont = bottom[2].read_data(self.memory)[..., None]
            self.xp.multiply(
                cell_diff * cont, self.gates[:, :, FORGET], out=bottom[0].write_diff(self.memory)
            )
        if propagate_down[1]:
            diff = bottom[1].write_diff(self.memory)
            diff[...] = sums_diff.reshape(diff.shape)
