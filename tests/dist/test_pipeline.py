from __future__ import annotations

from collections.abc import Iterator

import pytest

from dtrain.dist.errors import ClusterError
from dtrain.dist.pipeline import Pipeline
from dtrain.dist.waiting import Steps


class Gates:
    """Stages of pieces that end when told to, and what happened."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.begun: list[str] = []

    def steps(self, name: str) -> Steps:
        self.begun.append(name)
        while name not in self.open:
            yield False

    def piece(self, name: str, num_stages: int = 2) -> list[Steps]:
        return [self.steps(f"{name}{stage}") for stage in range(num_stages)]


def test_pipeline_begins_as_many_pieces_as_a_stage_is_wide() -> None:
    gates = Gates()
    pipeline = Pipeline([2, 1])
    pipeline.start(iter([gates.piece("a"), gates.piece("b"), gates.piece("c")]))
    assert gates.begun == ["a0", "b0"]
    gates.open |= {"a0", "b0"}
    assert pipeline.move_on()
    assert gates.begun == ["a0", "b0", "a1", "c0"]
    assert not pipeline.move_on()


def test_pipeline_begins_a_later_stage_in_order_though_pieces_end_out_of_order() -> None:
    gates = Gates()
    pipeline = Pipeline([2, 2])
    pipeline.start(iter([gates.piece("a"), gates.piece("b")]))
    gates.open.add("b0")
    pipeline.move_on()
    assert gates.begun == ["a0", "b0"]
    gates.open.add("a0")
    pipeline.move_on()
    assert gates.begun == ["a0", "b0", "a1", "b1"]


def test_reductions_are_done_in_the_order_of_their_starts_also_empty_ones() -> None:
    gates = Gates()
    pipeline = Pipeline([3])
    first = pipeline.start(iter([gates.piece("a", 1), gates.piece("b", 1)]))
    empty = pipeline.start(iter([]))
    last = pipeline.start(iter([gates.piece("c", 1)]))
    gates.open |= {"a0", "c0"}
    assert [each.test() for each in (last, empty, first)] == [False, False, False]
    gates.open.add("b0")
    assert [each.test() for each in (first, empty, last)] == [True, True, True]
    assert pipeline.is_empty


def test_pipeline_makes_pieces_only_when_there_is_room() -> None:
    gates = Gates()
    made: list[str] = []

    def pieces() -> Iterator[list[Steps]]:
        for name in "abc":
            made.append(name)
            yield gates.piece(name, 1)

    pipeline = Pipeline([1])
    pipeline.start(pieces())
    assert made == ["a"]
    gates.open |= {"a0"}
    pipeline.move_on()
    assert made == ["a", "b"]


def test_wait_looks_until_the_reduction_is_done() -> None:
    def three_looks() -> Steps:
        yield True
        yield False
        yield False

    pipeline = Pipeline([1])
    reduction = pipeline.start(iter([[three_looks()]]))
    later = pipeline.start(iter([[three_looks()]]))
    reduction.wait()
    assert reduction.test()
    pipeline.finish()
    assert later.test()


def test_run_moves_the_reductions_on_meanwhile() -> None:
    gates = Gates()
    pipeline = Pipeline([1])
    reduction = pipeline.start(iter([gates.piece("a", 1)]))

    def opens_it_and_waits_for_it() -> Steps:
        gates.open.add("a0")
        while not pipeline.is_empty:
            yield False

    pipeline.run(opens_it_and_waits_for_it())
    assert reduction.test()


def test_pipeline_that_has_failed_fails_again() -> None:
    gates = Gates()

    def fails() -> Steps:
        yield from gates.steps("a0")
        raise ClusterError("the network is gone")

    pipeline = Pipeline([1])
    reduction = pipeline.start(iter([[fails()]]))
    gates.open.add("a0")
    for call in (reduction.test, reduction.wait, pipeline.finish):
        with pytest.raises(ClusterError, match="the network is gone"):
            call()
