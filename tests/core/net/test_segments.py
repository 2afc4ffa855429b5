"""Where nets are cut: hand-made chains with the answer by hand, and random graphs in which nothing lost is missed."""

from __future__ import annotations

import math
import random

import pytest

from dtrain.core.net.segments import Node, Segment, choose_segments


def node(reads: str, writes: str, saved: str = "", can_run_again: bool = True) -> Node:
    """Return a node whose memories are named by letters, a being 0."""
    numbers = [frozenset(ord(letter) - ord("a") for letter in word) for word in (reads, writes, saved)]
    return Node(*numbers, can_run_again=can_run_again)


def chain(length: int) -> list[Node]:
    """Return layers in a row, each of which reads the memory before and saves it for backward."""
    data = Node(frozenset(), frozenset({0}), can_run_again=False)
    return [data, *(Node(frozenset({k}), frozenset({k + 1}), frozenset({k})) for k in range(length))]


def peak_of(nodes: list[Node], sizes: list[int], segments: list[Segment]) -> int:
    """Return the most bytes of data at once in backward, by going through it."""
    lost: set[int] = set()
    for segment in segments:
        lost.update(m for k in segment.again for m in nodes[k].writes)
    saved = {m for each in nodes for m in each.saved}
    read_again = {m for segment in segments for k in segment.again for m in nodes[k].reads}
    held = {m for m in saved | read_again if m not in lost}
    peak = 0
    for segment in reversed(segments):
        here = held | {m for k in segment.again for m in nodes[k].writes if m in saved}
        peak = max(peak, sum(sizes[m] for m in here))
        held -= {m for k in range(segment.start, segment.end) for m in nodes[k].writes}
    return peak


@pytest.mark.parametrize("length", [16, 64, 256])
def test_choose_segments_of_a_chain_needs_about_twice_the_root_of_its_length(length: int) -> None:
    nodes, sizes = chain(length), [1] * (length + 1)
    segments = choose_segments(nodes, sizes)
    assert peak_of(nodes, sizes, segments) <= 2 * math.sqrt(length) + 2
    assert 0.5 * math.sqrt(length) <= len(segments) <= 2 * math.sqrt(length)
    assert not segments[-1].again


def test_choose_segments_of_equal_memories_cuts_where_few_bytes_cross() -> None:
    # wide memories with a narrow one behind every third: the ends of segments are the narrow ones
    sizes = [8 if k % 3 else 1 for k in range(28)]
    nodes = chain(27)
    segments = choose_segments(nodes, sizes)
    ends = [sizes[max(nodes[segment.end - 1].writes)] for segment in segments[:-1]]
    assert len(ends) >= 3
    assert set(ends) == {1}


def test_choose_segments_of_a_short_net_has_one_that_runs_once() -> None:
    nodes = [node("", "a", can_run_again=False), node("a", "b", "a"), node("b", "c", "b")]
    assert choose_segments(nodes, [10, 10, 1]) == [Segment(0, 3)]
    assert choose_segments([], []) == [Segment(0, 0)]


# a → c → b, b in place, b → d → e → f → g: small b is where to cut, but not before what is done to it in place
IN_PLACE = [
    node("", "a", can_run_again=False),
    node("a", "c", "a"),
    node("c", "b", "c"),
    node("b", "b", "b"),
    node("b", "d", "b"),
    node("d", "e", "d"),
    node("e", "f", "e"),
    node("f", "g", "f"),
]


def test_choose_segments_never_parts_what_is_done_in_place() -> None:
    sizes = [100, 1, 100, 100, 1, 1, 1]
    segments = choose_segments(IN_PLACE, sizes)
    assert 4 in [segment.end for segment in segments]
    assert 3 not in [segment.end for segment in segments]
    first = next(segment for segment in segments if segment.end == 4)
    assert first.again == (1,), "c is lost; b is kept for the next segment, and so its layers run once"


@pytest.mark.parametrize("again", [True, False])
def test_choose_segments_runs_nothing_again_that_can_not_run_twice(again: bool) -> None:
    nodes, sizes = chain(9), [1, *[4] * 9]
    nodes[2] = Node(nodes[2].reads, nodes[2].writes, nodes[2].saved, can_run_again=again)
    segments = choose_segments(nodes, sizes)
    run_again = {k for segment in segments for k in segment.again}
    assert run_again
    assert (2 in run_again) <= again


def test_choose_segments_leaves_a_node_alone_that_fills_what_is_kept() -> None:
    nodes, sizes = chain(9), [4] * 12
    nodes[1] = Node(nodes[1].reads, nodes[1].writes | {11}, nodes[1].saved)
    assert 1 in {k for segment in choose_segments(nodes, sizes) for k in segment.again}
    assert 1 not in {k for segment in choose_segments(nodes, sizes, kept=[11]) for k in segment.again}


@pytest.mark.parametrize("seed", range(40))
def test_choose_segments_of_random_graphs_loses_nothing_that_is_looked_at(seed: int) -> None:
    nodes, sizes = _random_graph(random.Random(seed))
    kept = [len(sizes) - 1]
    segments = choose_segments(nodes, sizes, kept)
    assert [segment.start for segment in segments[1:]] == [segment.end for segment in segments[:-1]]
    assert (segments[0].start, segments[-1].end) == (0, len(nodes))
    lost_in = {m: number for number, s in enumerate(segments) for k in s.again for m in nodes[k].writes}
    assert kept[0] not in lost_in
    for number, segment in enumerate(segments):
        inside = range(segment.start, segment.end)
        computed: set[int] = set()
        for k in segment.again:
            assert nodes[k].can_run_again
            missing = {m for m in nodes[k].reads if m in lost_in} - computed
            assert not missing, "what a layer looks at is there when it runs again"
            computed |= nodes[k].writes
        for k, each in enumerate(nodes):
            for memory in each.reads | each.writes | each.saved:
                if lost_in.get(memory) == number:
                    assert k in inside, "no other segment looks at what this one computes again"
                    assert k in segment.again or memory not in each.writes, "all that write it do so again"


def test_choose_segments_of_random_graphs_does_not_take_more_than_keeping_all() -> None:
    for seed in range(40):
        nodes, sizes = _random_graph(random.Random(seed))
        segments = choose_segments(nodes, sizes)
        assert peak_of(nodes, sizes, segments) <= peak_of(nodes, sizes, [Segment(0, len(nodes))])


def _random_graph(draw: random.Random) -> tuple[list[Node], list[int]]:
    """Return layers that read one or two memories of those before, some in place, some that can't run twice."""
    nodes, sizes = [Node(frozenset(), frozenset({0}), can_run_again=False)], [draw.randint(1, 9)]
    overwritten: set[int] = set()
    for _ in range(40):
        near = [m for m in range(max(0, len(sizes) - 5), len(sizes)) if m not in overwritten]
        reads = frozenset(draw.sample(near, min(len(near), draw.randint(1, 2))))
        if draw.random() < 0.25 and max(near) in reads and all(max(near) not in n.reads for n in nodes[-1:]):
            writes = frozenset({max(near)})
        else:
            writes = frozenset({len(sizes)})
            sizes.append(draw.randint(1, 9))
        saved = frozenset(m for m in reads | writes if draw.random() < 0.6)
        nodes.append(Node(reads, writes, saved, can_run_again=draw.random() < 0.9))
    return nodes, sizes
