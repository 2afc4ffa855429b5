"""Recurrent layers: a state that goes from one time step to the next, and from one batch to the next.

Part of the net's stage: LSTM and RNN say how steps are taken; params, the input's part in all steps at once, the
carried state and most of backward are here. T is the number of time steps, N that of independent streams, H that
of hidden units. Follows caffe's recurrent_layer.cpp, which unrolls a net for the steps instead.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.sequence_bottoms import SequenceBottoms
from dtrain.core.layers.parts.weighted import check_num_output

log = logging.getLogger(__name__)

INPUT_WEIGHT, BIAS, STATIC_WEIGHT = 0, 1, 2


class RecurrentLayer(Layer):
    """A layer of steps that hand on a state: sums_t = W_x·x_t + b + W_static·static + W_h·(cont_t·h_{t−1}).

    Bottoms: x (T, N, …); cont (T, N), 1 where a stream's sequence goes on and 0 where one begins; perhaps
    static (N, …), which every step sees; with expose_hidden the initial states (1, N, H). Tops: one value per
    step (T, N, H); with expose_hidden the final states (1, N, H).

    Params: W_x (gates·H, I), b (gates·H), W_static (gates·H, S) if there is a static bottom, W_h (gates·H, H),
    and what a subclass adds.

    Unless exposed, the state at the end of a batch is where the next one begins, in both phases and on each
    rank by itself: `carried_state`, zeros at first and, unlike in Caffe, before each test pass. Snapshots keep it.
    When N changes, streams 0 … min(N, N') − 1 keep theirs and new ones begin with zeros. Gradients flow neither
    to an earlier batch nor into exposed initial states, nor do they come from exposed final states. T is fixed
    when the net is set up, N may change.
    """

    states: ClassVar[tuple[str, ...]]
    num_gates: ClassVar[int]
    no_gradient_bottoms = (1,)
    needs_whole_batches = True
    carries_state = True

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Create the params and the state. Raises UserError for bottoms and tops that can't be."""
        param = self.param.recurrent_param
        check_num_output(param.num_output, "recurrent_param")
        self.num_hidden = int(param.num_output)
        self.is_exposed = param.expose_hidden
        self.sequence = SequenceBottoms(self, self.states if self.is_exposed else (), bottom, len(top))
        self.no_gradient_bottoms = (1, *self.sequence.exposed)  # type: ignore[misc]  # this layer's own
        self._add_params()
        shape = (1, bottom[0].shape[1], self.num_hidden)
        self.carried_state = [Blob(shape, bottom[0].dtype) for _ in self.states if not self.is_exposed]
        self._has_looked_at_final_diffs = False
        if param.debug_info:
            log.warning(
                'layer "%s": recurrent_param.debug_info shows nothing, as the steps are no layers of their own',
                self.name,
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Shape the tops. Raises UserError if the bottoms don't fit each other or the params."""
        self.sequence.check(bottom, self.num_hidden)
        num_streams = bottom[0].shape[1]
        steps = (self.sequence.num_steps, num_streams)
        top[0].reshape(*steps, self.num_hidden)
        for blob in top[1:]:
            blob.reshape(1, num_streams, self.num_hidden)
        dtype = bottom[0].dtype
        self.sums = self.xp.empty((*steps, self.num_gates * self.num_hidden), dtype)
        self.hidden_in = self.xp.empty((*steps, self.num_hidden), dtype)  # cont_t·h_{t−1}

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Compute all steps, and the state after the last."""
        initial = [blob.read_data(self.memory)[0] for blob in self._initial_state(bottom)]
        self._add_up_inputs(bottom)
        cont = bottom[1].read_data(self.memory)[..., None]
        final = self.run_steps(initial, cont, top[0].write_data(self.memory))
        for blob, values in zip(top[1:] if self.is_exposed else self.carried_state, final, strict=True):
            blob.write_data(self.memory)[0] = values

    def backward(self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]) -> None:
        """Compute the gradients of x, static and the params through all steps of the batch."""
        self._look_at_final_diffs(top[1:])
        if not any(propagate_down) and not any(map(self.wants_param, range(len(self.blobs)))):
            return
        cont = bottom[1].read_data(self.memory)[..., None]
        diff = self.run_steps_back(top[0].read_diff(self.memory), cont)
        flat = rows(diff)
        self.add_to_param(BIAS, lambda: flat.sum(axis=0))
        self.add_to_param(self.hidden_weight, lambda: self.engine.matmul(flat.T, rows(self.hidden_in)))
        self._backward_weighted(INPUT_WEIGHT, flat, bottom[0], propagate_down[0])
        if self.sequence.has_static:
            self._backward_weighted(STATIC_WEIGHT, diff.sum(axis=0), bottom[2], propagate_down[2])

    def get_state(self) -> bytes | None:
        """Return the carried state: (N, H) for each of `states`, one after the other; None if it is exposed."""
        if self.is_exposed:
            return None
        return b"".join(blob.read_data().tobytes() for blob in self.carried_state)

    def set_state(self, state: bytes) -> None:
        """Go on from what get_state returned, of any N. Raises UserError for a state of another size."""
        row_bytes = len(self.states) * self.num_hidden * self.carried_state[0].dtype.itemsize
        if len(state) % row_bytes:
            raise UserError(
                f"carried state must be a multiple of {row_bytes} bytes ({', '.join(self.states)} of "
                f"{self.num_hidden} units), got {len(state)}; the snapshot is of another net"
            )
        values = np.frombuffer(state, self.carried_state[0].dtype)
        values = values.reshape(len(self.states), 1, len(state) // row_bytes, self.num_hidden)
        for blob, kept in zip(self.carried_state, values, strict=True):
            blob.reshape(*kept.shape)
            blob.write_data()[...] = kept

    def begin_anew(self) -> None:
        """Set the carried state to zeros."""
        for blob in self.carried_state:
            blob.write_data(self.memory)[...] = 0

    @abstractmethod
    def run_steps(self, initial: Sequence[Any], cont: Any, output: Any) -> Sequence[Any]:
        """Take all steps from the `initial` states (N, H), write `output` (T, N, H), return the final states.

        cont: (T, N, 1). self.sums: all but the part of W_h, to be completed and used up. self.hidden_in: to be
        filled.
        """

    @abstractmethod
    def run_steps_back(self, output_diff: Any, cont: Any) -> Any:
        """Return the gradient of the sums (T, N, gates·H) from that of the output (T, N, H)."""

    @property
    def hidden_weight(self) -> int:
        """The index of W_h among the params."""
        return STATIC_WEIGHT + self.sequence.has_static

    def read_param(self, index: int) -> Any:
        """Return the values of a param."""
        return self.blobs[index].read_data(self.memory)

    def add_to_param(self, index: int, gradient: Callable[[], Any]) -> None:
        """Add what `gradient` returns to the diff of a param, if it is wanted."""
        if self.wants_param(index):
            self.blobs[index].add_to_diff(gradient(), self.memory)

    def _add_params(self) -> None:
        param = self.param.recurrent_param
        num_sums = self.num_gates * self.num_hidden
        self.add_param((num_sums, self.sequence.num_inputs), param.weight_filler)
        self.add_param((num_sums,), param.bias_filler)
        if self.sequence.has_static:
            self.add_param((num_sums, self.sequence.num_static), param.weight_filler)
        self.add_param((num_sums, self.num_hidden), param.weight_filler)

    def _add_up_inputs(self, bottom: Sequence[Blob]) -> None:
        """Set the sums to W_x·x + b + W_static·static, for all steps at once."""
        flat = rows(self.sums)
        x = bottom[0].read_data(self.memory).reshape(len(flat), self.sequence.num_inputs)
        self.engine.matmul(x, self.read_param(INPUT_WEIGHT).T, out=flat)
        added = self.read_param(BIAS)
        if self.sequence.has_static:
            static = bottom[2].read_data(self.memory).reshape(bottom[2].shape[0], self.sequence.num_static)
            added = added + self.engine.matmul(static, self.read_param(STATIC_WEIGHT).T)
        self.sums += added

    def _backward_weighted(self, index: int, diff: Any, bottom: Blob, wants_bottom: bool) -> None:
        """Take `diff`, the gradient of bottom·Wᵀ, on to the weight (param `index`) and to the bottom."""
        weight = self.read_param(index)
        shape = (len(diff), weight.shape[1])
        self.add_to_param(
            index, lambda: self.engine.matmul(diff.T, bottom.read_data(self.memory).reshape(shape))
        )
        if wants_bottom:
            self.engine.matmul(diff, weight, out=bottom.write_diff(self.memory).reshape(shape))

    def _initial_state(self, bottom: Sequence[Blob]) -> Sequence[Blob]:
        if self.is_exposed:
            return [bottom[i] for i in self.sequence.exposed]
        num_streams = bottom[0].shape[1]
        for blob in self.carried_state:
            if blob.shape[1] != num_streams:
                self._resize_state(blob, num_streams)
        return self.carried_state

    def _resize_state(self, blob: Blob, num_streams: int) -> None:
        kept = blob.read_data(self.memory)[:, :num_streams].copy()
        blob.reshape(1, num_streams, self.num_hidden)
        values = blob.write_data(self.memory)
        values[...] = 0
        values[:, : kept.shape[1]] = kept

    def _look_at_final_diffs(self, final: Sequence[Blob]) -> None:
        """Say at the first backward pass that gradients of final states go nowhere, if there are any."""
        if self._has_looked_at_final_diffs:
            return
        self._has_looked_at_final_diffs = True
        for name, blob in zip(self.states, final, strict=False):
            if self.xp.any(blob.read_diff(self.memory)):
                log.warning(
                    'layer "%s": no gradient flows back from the final state %s_T, as in Caffe; what a loss is to '
                    "learn from must be taken from the first top",
                    self.name,
                    name,
                )


def rows(sequence: Any) -> Any:
    """Return (T, N, K) as (T·N, K), sharing memory."""
    return sequence.reshape(sequence.shape[0] * sequence.shape[1], sequence.shape[2])
