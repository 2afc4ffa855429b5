"""Where a net is cut into segments of which only the ends are kept, and what of them runs forward again.

    nodes of the net, sizes of memories ──> segments ──> what runs again ──> lifetimes, recomputation

A pure function. With n blobs of one size about √n are kept and √n computed again at once (Chen et al., Training Deep
Nets with Sublinear Memory Cost, 2016); here cuts are where few bytes cross, found by dynamic programming for many
limits on the bytes of a segment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

_NUM_LIMITS = 12  # on the bytes of a segment: all of them, and each half the one before


@dataclass(frozen=True)
class Node:
    """Layers that run forward at one go, mostly one; memories are numbered, views of one are it.

    reads, writes: the memories of data that forward looks at, and fills. saved: those that its backward looks at.
    can_run_again: whether forward may run twice and gives the same both times.
    """

    reads: frozenset[int]
    writes: frozenset[int]
    saved: frozenset[int] = frozenset()
    can_run_again: bool = True


@dataclass(frozen=True)
class Segment:
    """Nodes `start` to `end`, exclusive. again: those of them that run forward again before its backward."""

    start: int
    end: int
    again: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Piece:
    """What a segment takes: bytes that later ones look at, and bytes that only its own backward looks at."""

    start: int
    end: int
    leaving: int
    inside: int


def choose_segments(
    nodes: Sequence[Node],
    sizes: Sequence[int],
    kept: Collection[int] = (),
    peak: Callable[[Sequence[Segment]], int] | None = None,
) -> list[Segment]:
    """Return the segments that need least memory at their worst moment, in order; one without `again` if none do.

    sizes: the bytes of each memory. kept: memories that stay whatever is chosen. No memory is written on both sides
    of a cut, so what is done in place is one with what made the values. A memory that a later segment looks at is
    kept. What the last segment has computed is still there when its backward comes, and so it runs once; so do others
    that may keep all without taking more at the worst moment.

    peak: what tells the bytes of some segments at their worst moment; by default those of data that backward reads.
    """
    fixed = {*kept, *(memory for node in nodes if not node.can_run_again for memory in node.writes)}
    memories = _Memories(nodes, sizes, fixed)
    limits = [sum(sizes) / 2**k for k in range(_NUM_LIMITS)]
    best: tuple[int, list[Segment]] | None = None
    cuts = ([_Piece(0, len(nodes), 0, memories.total)], *map(memories.cut, limits))
    for pieces in dict.fromkeys(map(tuple, cuts)):  # each once
        stays, least = _who_stays(pieces)
        segments = [
            Segment(piece.start, piece.end, () if stay else _find_again(nodes, piece, memories, fixed))
            for piece, stay in zip(pieces, stays, strict=True)
        ]
        needed = least if peak is None else peak(segments)
        if best is None or needed < best[0]:
            best = needed, segments
    assert best is not None
    return best[1]


def _who_stays(pieces: Sequence[_Piece]) -> tuple[list[bool], int]:
    """Return which pieces keep all, as many as may, and the most bytes at once."""
    stays = [False] * len(pieces)
    least = _peak(pieces, stays)
    for k in reversed(range(len(pieces))):
        stays[k] = True
        stays[k] = _peak(pieces, stays) <= least
    return stays, least


class _Memories:
    """From which node to which each memory that may be lost is written and looked at."""

    def __init__(self, nodes: Sequence[Node], sizes: Sequence[int], fixed: Collection[int]) -> None:
        self.last_use: dict[int, int] = {}
        self._sizes = sizes
        first_write: dict[int, int] = {}
        is_cut = [True] * (len(nodes) + 1)  # whether there may be a cut before the node
        for k, node in enumerate(nodes):
            for memory in node.writes:
                for between in range(first_write.setdefault(memory, k) + 1, k + 1):
                    is_cut[between] = False
            self.last_use.update(dict.fromkeys(node.reads | node.writes, k))
        self._saved = frozenset[int]().union(*(node.saved for node in nodes))
        self._cuts = [k for k, cut in enumerate(is_cut) if cut]
        self._made: list[list[int]] = [[] for _ in nodes]  # by the node that writes it first
        for memory, k in first_write.items():
            if memory not in fixed:
                self._made[k].append(memory)
        self.total = sum(sizes[memory] for made in self._made for memory in made if memory in self._saved)

    def cut(self, limit: float) -> list[_Piece]:
        """Return the pieces whose ends take least together, of at most `limit` bytes inside where that can be."""
        best: dict[int, tuple[int, list[_Piece]]] = {0: (0, [])}
        for number, end in enumerate(self._cuts[1:], start=1):
            leaving = inside = 0
            for start, behind in zip(
                reversed(self._cuts[:number]), reversed(self._cuts[1 : number + 1]), strict=True
            ):
                for memory in (memory for made in self._made[start:behind] for memory in made):
                    if self.last_use[memory] >= end:
                        leaving += self._sizes[memory]
                    elif memory in self._saved:
                        inside += self._sizes[memory]
                if inside > limit and end in best:
                    break
                so_far, pieces = best[start]
                if end not in best or so_far + leaving < best[end][0]:
                    best[end] = so_far + leaving, [*pieces, _Piece(start, end, leaving, inside)]
        return best[self._cuts[-1]][1]


def _peak(pieces: Sequence[_Piece], stays: Sequence[bool]) -> int:
    """Return the most bytes at once in backward. stays: the pieces that keep all."""
    held = peak = 0
    for piece, stay in zip(pieces, stays, strict=True):
        held += piece.leaving
        peak = max(peak, held + piece.inside)
        held += piece.inside if stay else 0
    return peak


def _find_again(
    nodes: Sequence[Node], piece: _Piece, memories: _Memories, fixed: Collection[int]
) -> tuple[int, ...]:
    """Return the nodes of a piece that must run again for its backward."""
    numbers = range(piece.start, piece.end)
    written = {memory for k in numbers for memory in nodes[k].writes}
    lost = {m for m in written if m not in fixed and memories.last_use[m] < piece.end}
    while stuck := {m for k in numbers if not nodes[k].writes <= lost for m in nodes[k].writes & lost}:
        lost -= stuck  # a node that fills one that is kept can't run again
    needed = {memory for k in numbers for memory in nodes[k].saved & lost}
    again = []
    for k in reversed(numbers):
        if nodes[k].writes & needed:
            again.append(k)
            needed |= nodes[k].reads & lost
    return tuple(reversed(again))
