"""RNN: a recurrent layer of plain tanh units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtrain.core.blob import Blob
from dtrain.core.layers.layer import LAYERS, Arity
from dtrain.core.layers.parts.recurrence import RecurrentLayer, rows


@LAYERS.register("RNN")
class RNN(RecurrentLayer):
    """Bottoms: x (T, N, …), cont (T, N), perhaps static (N, …), with expose_hidden h_0 (1, N, H). Tops: o
    (T, N, H), with expose_hidden h_T (1, N, H). For each step t:

        h_t = tanh(W_xh·x_t + b_h + W_xh_static·static + W_hh·(cont_t·h_{t−1}))        o_t = tanh(W_ho·h_t + b_o)

    Params: W_xh (H, I), b_h (H), W_xh_static (H, S) if there is a static bottom, W_hh (H, H), W_ho (H, H), b_o
    (H). State from batch to batch, and what may change: see RecurrentLayer. Follows caffe's rnn_layer.cpp.
    """

    messages = ("recurrent_param",)
    bottoms = Arity(2, 4)
    tops = Arity(1, 2)
    states = ("h",)
    num_gates = 1

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the params and the state. Raises UserError for bottoms and tops that can't be."""
        super().setup(bottom, top)
        param = self.param.recurrent_param
        self.add_param((self.num_hidden, self.num_hidden), param.weight_filler)
        self.add_param((self.num_hidden,), param.bias_filler)

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError if the bottoms don't fit each other or the params."""
        super().reshape(bottom, top)
        self.output = self.xp.empty_like(self.sums)  # of its own: a layer behind may work in place on the top

    def run_steps(self, initial: Sequence[Any], cont: Any, output: Any) -> Sequence[Any]:
        """Take all steps, then the output of all at once; return h_T."""
        weight = self.read_param(self.hidden_weight).T
        (hidden,) = initial
        for t in range(len(cont)):
            self.xp.multiply(hidden, cont[t], out=self.hidden_in[t])
            hidden = self.sums[t]
            hidden += self.engine.matmul(self.hidden_in[t], weight)
            self.xp.tanh(hidden, out=hidden)
        output_weight, output_bias = self.read_param(-2), self.read_param(-1)
        self.engine.matmul(rows(self.sums), output_weight.T, out=rows(self.output))
        self.output += output_bias
        self.xp.tanh(self.output, out=self.output)
        output[...] = self.output
        return (hidden,)

    def run_steps_back(self, output_diff: Any, cont: Any) -> Any:
        """Return the gradient of the sums, from the last step to the first; add to those of W_ho and b_o."""
        hidden = self.sums
        sums_diff = self._backward_output(output_diff).reshape(hidden.shape)
        weight = self.read_param(self.hidden_weight)
        by_sums = 1 - hidden * hidden
        for t in reversed(range(len(cont))):
            sums_diff[t] *= by_sums[t]
            if t:
                sums_diff[t - 1] += self.engine.matmul(sums_diff[t], weight) * cont[t]
        return sums_diff

    def _backward_output(self, output_diff: Any) -> Any:
        """Return the gradient of h, (T·N, H), from that of o, and add to those of W_ho and b_o."""
        flat = rows((1 - self.output * self.output) * output_diff)
        weight, bias = len(self.blobs) - 2, len(self.blobs) - 1
        self.add_to_param(weight, lambda: self.engine.matmul(flat.T, rows(self.sums)))
        self.add_to_param(bias, lambda: flat.sum(axis=0))
        return self.engine.matmul(flat, self.read_param(weight))
