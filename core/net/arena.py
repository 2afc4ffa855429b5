"""The arena: all learned params of a net in one run of memory, and all their diffs in another.

Diffs lie in the order in which backward makes them ready (last layer first), so that a bucket for all-reduce
is a slice and needs no packing. A few extra values before the diffs travel with the first of them (see
core/solver/gradient_exchange.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.arrays import assign, to_host
from dtrain.core.net.params import Param
from dtrain.core.tensor import HOST, Memory
from dtrain.dist.memory import ALIGNMENT_BYTES, aligned_zeros, give_back_freed

Array = NDArray[Any]
Allocate = Callable[[int, np.dtype[Any]], Array]

_VALUES_PER_LINE = ALIGNMENT_BYTES // np.dtype(np.float32).itemsize
_PIECE_SIZE = 1 << 16  # values, so that scratch memory is small and stays in the cache


class Arena:
    """Contiguous float32 memory for the data and diffs of `params`, which move into it.

    Arguments:
        params: the ones that get gradients, in the order of forward.
        num_extra: values before the diffs.
        allocate: gives the memory of diffs on the host, zeros that start on a cache line: a communicator's allocate.
        memory: where the values are to be: the host's, or a GPU's.

    params: the same in the order in which they lie here: those that learn as backward makes them ready, then those
    with lr_mult 0. places: where each one's diff is in `reduced`. places_in_data: where its values are in `data`, and
    the diff in `diff`, in the same order, and place_in_data by the param's id.

    data, diff and reduced (the extra values and diff) are arrays in `memory`. An engine may hold newer values
    elsewhere, so ask for them by the methods. extra is a host array; on a GPU it takes send_extra and take_extra to
    let its values travel with the diffs, as sent_extra.
    """

    def __init__(
        self,
        params: Sequence[Param],
        num_extra: int = 0,
        allocate: Allocate = aligned_zeros,
        memory: Memory = HOST,
    ) -> None:
        as_ready = _as_ready(params)
        learned = [param for param in as_ready if param.learning_rate_multiplier]
        self.params = learned + [param for param in as_ready if not param.learning_rate_multiplier]
        num_before = _round_up(num_extra)
        self.places: list[slice] = []
        end = num_before
        for param in self.params:
            self.places.append(slice(end, end + param.blob.count))
            end += _round_up(param.blob.count)  # each param starts on a cache line
        self.places_in_data = [slice(p.start - num_before, p.stop - num_before) for p in self.places]
        self.place_in_data = {id(p): place for p, place in zip(self.params, self.places_in_data, strict=True)}
        self.memory = memory
        self.data: Array = memory.allocate(end - num_before, np.float32)
        self.reduced = self.zeros(end, allocate)
        self.diff = self.reduced[num_before:]
        self.sent_extra = self.reduced[:num_extra]
        self.extra: Array = self.sent_extra if memory is HOST else np.zeros(num_extra, np.float32)
        for param, place in zip(self.params, self.places_in_data, strict=True):
            param.blob.data_tensor.move_into(self.data[place], memory)
            param.blob.diff_tensor.move_into(self.diff[place], memory)
        give_back_freed()  # where the params lay before: as much as they take now

    def update_data(self) -> Array:
        """Return the data of all params for changing: the newest values, and the only ones from now on."""
        for param in self.params:
            param.blob.update_data(self.memory)
        return self.data

    def update_reduced(self) -> Array:
        """Return the extra values and the diffs for changing: the newest, and the only ones from now on."""
        self.gather(self.params)
        return self.reduced

    def zeros(self, num_values: int, allocate: Allocate) -> Array:
        """Return zeros in the arena's memory, for sums over ranks. allocate: as for the arena itself."""
        take = allocate if self.memory is HOST else self.memory.allocate
        return take(num_values, np.dtype(np.float32))

    def gather(self, params: Sequence[Param]) -> None:
        """Let the diffs of `params` that are here be the newest, and the only ones from now on."""
        for param in params:
            param.blob.update_diff(self.memory)

    def clear(self) -> None:
        """Set the diffs and the extra values to 0; the arrays show it once they have been asked for by a method."""
        for param in self.params:
            param.blob.clear_diff()
        self.extra[...] = 0

    def void_diffs(self) -> None:
        """Set the diffs to 0 as `clear` does, but write nothing: neither here nor where somebody holds an array."""
        for param in self.params:
            storage = param.blob.diff_tensor.storage
            storage.given_back = ""
            storage.valid.clear()

    def send_extra(self) -> None:
        """Put the extra values before the diffs, which are about to be summed."""
        if self.sent_extra is not self.extra:
            assign(self.sent_extra, self.extra)

    def take_extra(self, wait_for: Callable[[Callable[[], bool]], object]) -> None:
        """Take the sums of the extra values; from a GPU when the communicator's `wait_for` has waited for them."""
        if self.sent_extra is not self.extra:
            wait_for(self.memory.mark())
            self.extra[...] = to_host(self.sent_extra)


def _as_ready(params: Sequence[Param]) -> list[Param]:
    """Return `params` in the order in which backward makes them ready: the last layer first. Those of one layer are
    ready together; they are turned round where that brings like to like (biases, weights), which updates then join.
    """
    ordered: list[Param] = []
    for _, of_layer in groupby(reversed(params), key=lambda param: param.layer_index):
        group = list(of_layer)
        if ordered and _kind(ordered[-1]) == _kind(group[-1]):
            group.sort(key=lambda param: _kind(param) != _kind(ordered[-1]))
        ordered += group
    return ordered


def _kind(param: Param) -> tuple[float, float, bool]:
    return param.learning_rate_multiplier, param.decay_multiplier, param.is_bias


def swap_values(left: Array, right: Array) -> None:
    """Let each of two arrays, (n,) of one dtype, have the values of the other."""
    for start in range(0, left.size, _PIECE_SIZE):
        piece = slice(start, start + _PIECE_SIZE)
        scratch = left[piece].copy()
        left[piece] = right[piece]
        right[piece] = scratch


def _round_up(num_values: int) -> int:
    """Return the least number of values that fills whole cache lines."""
    return -(-num_values // _VALUES_PER_LINE) * _VALUES_PER_LINE
