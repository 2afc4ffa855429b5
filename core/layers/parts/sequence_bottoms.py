"""The bottoms of a recurrent layer: which is what, and which shapes they must have.

Part of the net's stage: a RecurrentLayer makes one in setup and asks it in reshape. T is the number of time steps,
N that of streams, H that of hidden units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from dtrain.core.blob import Blob
from dtrain.core.errors import UserError
from dtrain.core.layers.layer import Layer
from dtrain.core.layers.parts.shapes import name_bottom

Shape = tuple[int, ...]


class SequenceBottoms:
    """x (T, N, …), cont (T, N), perhaps static (N, …), then the exposed initial states, each (1, N, H).

    num_steps: T. num_inputs, num_static: values per step and stream of x, and per stream of static (0 without
    one). exposed: the indices of the initial states.

    Arguments:
        layer: names the bottoms in errors.
        states: the names of the exposed states, "h" and "c"; none when they are not exposed.
        bottom, num_tops: what the layer is set up with.
    Raises:
        UserError: the number of bottoms or tops is wrong, or a shape.
    """

    def __init__(self, layer: Layer, states: Sequence[str], bottom: Sequence[Blob], num_tops: int) -> None:
        self._layer = layer
        _check_counts(states, len(bottom), num_tops)
        self.has_static = len(bottom) > 2 + len(states)
        self.exposed = range(2 + self.has_static, len(bottom))
        self._check_axes(bottom)
        self.num_steps = bottom[0].shape[0]
        self.num_inputs = math.prod(bottom[0].shape[2:])
        self.num_static = math.prod(bottom[2].shape[1:]) if self.has_static else 0

    def check(self, bottom: Sequence[Blob], num_hidden: int) -> None:
        """Raise UserError unless the bottoms fit each other, and T and the numbers of inputs are as at setup."""
        self._check_axes(bottom)
        shape = bottom[0].shape
        if shape[0] != self.num_steps:
            raise self._error(0, f"must keep the {self.num_steps} time steps of the net's setup", shape)
        if math.prod(shape[2:]) != self.num_inputs:
            rule = f"must keep {self.num_inputs} values per step and stream, as the weight was made for"
            raise self._error(0, rule, shape)
        if self.has_static and math.prod(bottom[2].shape[1:]) != self.num_static:
            rule = f"must keep {self.num_static} values per stream, as the weight was made for"
            raise self._error(2, rule, bottom[2].shape)
        state = (1, shape[1], num_hidden)
        for i in self.exposed:
            if bottom[i].shape != state:
                rule = f"must be an initial state of shape (1, N, num_output) = {state}"
                raise self._error(i, rule, bottom[i].shape)

    def _check_axes(self, bottom: Sequence[Blob]) -> None:
        shape = bottom[0].shape
        if len(shape) < 3 or shape[0] < 1:
            raise self._error(0, "must be (T, N, inputs …) with at least 1 time step", shape)
        if bottom[1].shape != shape[:2]:
            rule = f"must have one value per step and stream of x, (T, N) = {shape[:2]}"
            raise self._error(1, rule, bottom[1].shape)
        if self.has_static and (len(bottom[2].shape) < 2 or bottom[2].shape[0] != shape[1]):
            rule = f"must be (N, inputs …) for the N = {shape[1]} streams of x"
            raise self._error(2, rule, bottom[2].shape)

    def _error(self, index: int, rule: str, shape: Shape) -> UserError:
        return UserError(f"{name_bottom(self._layer, index)} {rule}, got shape {shape}")


def _check_counts(states: Sequence[str], num_bottoms: int, num_tops: int) -> None:
    least = 2 + len(states)
    word = "with" if states else "without"
    if num_bottoms not in (least, least + 1):
        initial = "".join(f", {name}_0" for name in states)
        raise UserError(
            f"needs {least} bottoms (x, cont{initial}) or {least + 1} (x, cont, static{initial}) {word} "
            f"recurrent_param.expose_hidden, got {num_bottoms}"
        )
    if num_tops != 1 + len(states):
        tops = ", ".join(["h", *(f"{name}_T" for name in states)])
        raise UserError(
            f"needs {1 + len(states)} top{'s' if states else ''} ({tops}) {word} "
            f"recurrent_param.expose_hidden, got {num_tops}"
        )
