"""The observer: who is told how a run goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from dtrain.core.net.scores import Score

if TYPE_CHECKING:
    from dtrain.core.solver.solver import Solver


class Observer(Protocol):
    """Who is told how a run goes (the progress line, say). Calls come on every rank."""

    def on_start(self, solver: Solver) -> None:
        """Training is about to begin (or to go on)."""

    def on_epoch(self, solver: Solver, epoch: int) -> None:
        """An epoch of the first reading layer, counted from 0, begins in the iteration that comes."""

    def on_iteration(self, solver: Solver) -> None:
        """An iteration is done; solver.iter counts it already."""

    def on_test(self, solver: Solver, net_index: int, scores: Sequence[Score]) -> None:
        """A test net has been run."""

    def on_snapshot(self, solver: Solver, path: str) -> None:
        """A snapshot is being written."""

    def on_end(self, solver: Solver) -> None:
        """Training has ended."""
