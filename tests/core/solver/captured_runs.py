"""Runs of GPUs whose iterations are captured into CUDA graphs or not, and what is compared of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Promises
from dtrain.core.net.memory_sharing import share_memory
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.single import SingleCommunicator
from tests.core.solver.small_runs import Outcome, Recorder, assert_same_bits, outcome_of
from tests.played.cupy import REAL_GPU

REPLAYED = "Iterations are replayed as CUDA graphs"
BY_ITSELF = "Each layer is launched by itself"

Start = Callable[[Solver], object]


@contextmanager
def opened(
    path: str,
    captures: bool,
    engine: str = "cudnn",
    communicator: Communicator | None = None,
    memory: str = "shared",
) -> Iterator[tuple[Solver, Recorder]]:
    """Give a solver as `dtrain train` makes it, with graphs or without, and what it tells.

    memory: of blobs: shared, kept or recomputed.
    """
    recipe, recorder = read_recipe(path), Recorder()
    solver = Solver(
        recipe,
        engine=create_engine(engine, recipe.precision, promises=Promises(deterministic=True)),
        communicator=communicator or SingleCommunicator(),
        observers=[recorder],
    )
    try:
        solver.fuse()
        if memory != "kept":
            share_memory([solver.net, *solver.test_nets], recomputes=memory == "recomputed")
        if captures:
            solver.capture()
        yield solver, recorder
    finally:
        solver.close()


def run(
    path: str, captures: bool, start: Start = lambda solver: None, engine: str = "cudnn", **more: Any
) -> Outcome:
    """Solve and return the outcome; `start` is called before."""
    with opened(path, captures, engine, **more) as (solver, recorder):
        start(solver)
        solver.solve()
        return outcome_of(solver, recorder)


def assert_same_run(mine: Outcome, theirs: Outcome) -> None:
    """Assert that two runs have the same bits, but for sums of losses: a real GPU has an order of its own."""
    if os.environ.get(REAL_GPU):
        assert mine.losses == pytest.approx(theirs.losses, rel=1e-12)
        mine.losses[:], theirs.smoothed_loss = theirs.losses, mine.smoothed_loss
    assert mine.losses == theirs.losses
    assert_same_bits(mine, theirs)
    assert [scores for _, _, scores in mine.tests] == [scores for _, _, scores in theirs.tests]


def count(caplog: pytest.LogCaptureFixture, beginning: str) -> int:
    return sum(message.startswith(beginning) for message in caplog.messages)
