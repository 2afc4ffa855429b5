"""The exponential moving average of the learned weights, which tests use and snapshots keep beside the weights.

Stands beside the updater: each update of the weights is followed by one of their average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtrain.core.net.arena import Arena, swap_values
from dtrain.core.net.net import Net
from dtrain.core.net.weights import copy_weights
from dtrain.core.snapshots import LayerWeights
from dtrain.dist.communicator import Communicator

_PIECE_SIZE = 1 << 16  # values, so that scratch memory is small and stays in the cache


class WeightAverage:
    """Averages the learned weights in `arena`: after the t-th update

        average ← d·average + (1 − d)·w,   d = decay·(1 − decay^(t−1)) / (1 − decay^t)

    which is the mean of all weights so far, each counting decay times as much as the next, free of a start at
    0 (as Adam's moments are) and of the weights before the first update. Running statistics (BatchNorm's) are
    not averaged: they are means already.

    num_updates: t, 0 where there is no average (yet); the weights themselves are then shown in its place.
    """

    def __init__(self, arena: Arena, decay: float) -> None:
        self._arena = arena
        self._decay = decay
        self._average: NDArray[Any] = np.zeros_like(arena.data) if decay else arena.data[:0]
        self._scratch = np.empty_like(self._average[:_PIECE_SIZE])
        self.num_updates = 0

    @property
    def is_on(self) -> bool:
        """Whether the solver asks for averages."""
        return self._decay > 0

    def enter(self) -> None:
        """Enter the weights that an update has just left."""
        if not self.is_on:
            return
        self.num_updates += 1
        share = (1 - self._decay) / (1 - self._decay**self.num_updates)  # 1 − d
        weights = self._arena.update_data()
        for start in range(0, self._average.size, _PIECE_SIZE):
            average = self._average[start : start + _PIECE_SIZE]
            scratch = self._scratch[: average.size]
            np.subtract(weights[start : start + _PIECE_SIZE], average, out=scratch)
            scratch *= share
            average += scratch

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Let the nets have the averages for weights inside the with statement, and the weights again after it."""
        if not self.num_updates:
            yield
            return
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def forget(self) -> None:
        """Begin anew from the weights of the next update."""
        self._average[...] = 0
        self.num_updates = 0

    def read(self, net: Net, weights: Sequence[LayerWeights], path: str) -> None:
        """Take the averages from `weights`, read from the file `path`; overwrites the params of `net` on the way.

        Raises UserError, before anything has changed, for weights of another net.
        """
        copy_weights(net, weights, path)
        self._average[...] = self._arena.update_data()

    def broadcast(self, num_updates: int, communicator: Communicator) -> None:
        """Give every rank the averages of rank 0, of so many updates. Collective."""
        self.num_updates = num_updates
        communicator.broadcast(self._average)

    def _swap(self) -> None:
        swap_values(self._average, self._arena.update_data())
