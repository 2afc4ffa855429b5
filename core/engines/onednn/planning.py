"""The best choice of a layout for each node of a graph, where nodes and changes between neighbours have costs.

    what a net runs ──> net_layouts.py ──> planning ──> operations

A pure function. Nodes are taken out one by one, those with the fewest neighbours first, each as its best choice for
every choice of its neighbours; then they are given theirs in the opposite order (variable elimination; on a chain or
a tree it is dynamic programming). That is exact. Nets are long and thin, so that there are few neighbours at a time;
where there are too many, the node with the most is fixed at what is best by itself and beside what is fixed already.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

MOST_NEIGHBOURS = 8


@dataclass(frozen=True, eq=False)
class _Table:
    """What each combination of the choices of some nodes costs, in the order of `nodes`."""

    nodes: tuple[int, ...]
    costs: Mapping[tuple[str, ...], float]


def plan(
    costs: Sequence[Mapping[str, float]],
    edges: Iterable[tuple[int, int, float]],
    most_neighbours: int = MOST_NEIGHBOURS,
) -> list[str]:
    """Return the choice for each node with which the sum of all costs is least.

    costs: of each node, choice → cost; of equal ones the first counts. edges: (node, node, cost), paid where the two
    have different choices. most_neighbours: how many a node may have to be taken out exactly.
    """
    tables = [
        _Table((node,), {(choice,): cost for choice, cost in own.items()}) for node, own in enumerate(costs)
    ]
    for a, b, cost in edges:
        if a != b:
            pairs = itertools.product(costs[a], costs[b])
            tables.append(_Table((a, b), {pair: cost * (pair[0] != pair[1]) for pair in pairs}))
    allowed = [tuple(own) for own in costs]
    taken_out: list[tuple[int, tuple[int, ...], dict[tuple[str, ...], str]]] = []
    left = _Left(tables, allowed)
    while left.nodes:
        node = left.next_node()
        if len(allowed[node]) > 1 and len(left.neighbours[node]) > most_neighbours:
            left.put_back(node)
            node = left.busiest_node()
            allowed[node] = (left.best_alone(node),)
        taken_out.append((node, *left.take_out(node)))
    chosen: dict[int, str] = {}
    for node, neighbours, best in reversed(taken_out):
        chosen[node] = best[tuple(chosen[neighbour] for neighbour in neighbours)]
    return [chosen[node] for node in range(len(costs))]


class _Left:
    """The nodes that are not taken out yet, and the tables of costs among them."""

    def __init__(self, tables: Sequence[_Table], allowed: Sequence[Sequence[str]]) -> None:
        self.allowed = allowed
        self.nodes = set(range(len(allowed)))
        self.neighbours: list[set[int]] = [set() for _ in allowed]
        self.tables: list[list[_Table]] = [[] for _ in allowed]
        self._order: list[tuple[bool, int, int]] = []  # a heap; some of it is out of date
        for table in tables:
            self._enter(table)

    def next_node(self) -> int:
        """Return the node to take out: one with a single choice, or the one with the fewest neighbours."""
        while True:
            rank = heapq.heappop(self._order)
            if rank[-1] in self.nodes and rank == self._rank(rank[-1]):
                return rank[-1]

    def put_back(self, node: int) -> None:
        """Let next_node return the node again."""
        heapq.heappush(self._order, self._rank(node))

    def busiest_node(self) -> int:
        """Return the node with the most neighbours."""
        return max(self.nodes, key=lambda node: (len(self.neighbours[node]), -node))

    def best_alone(self, node: int) -> str:
        """Return the choice that costs least by itself."""
        alone = [table for table in self.tables[node] if table.nodes == (node,)]
        return min(self.allowed[node], key=lambda choice: sum(table.costs[choice,] for table in alone))

    def take_out(self, node: int) -> tuple[tuple[int, ...], dict[tuple[str, ...], str]]:
        """Return the node's neighbours, and its best choice for each of theirs; these bear its costs from now on."""
        tables = self.tables[node]
        for table in tables:
            for other in table.nodes:
                if other != node:
                    self.tables[other].remove(table)
        if len(self.allowed[node]) == 1:  # neighbours don't become each other's
            return self._take_out_fixed(node, tables)
        neighbours = tuple(sorted(self.neighbours[node]))
        best, costs = self._find_best(node, neighbours, tables)
        self._leave(node)
        if neighbours:
            self._enter(_Table(neighbours, costs))
        return neighbours, best

    def _take_out_fixed(
        self, node: int, tables: Sequence[_Table]
    ) -> tuple[tuple[int, ...], dict[tuple[str, ...], str]]:
        (choice,) = self.allowed[node]
        self._leave(node)
        for table in tables:
            place = table.nodes.index(node)
            others = table.nodes[:place] + table.nodes[place + 1 :]
            if others:
                costs = {
                    key[:place] + key[place + 1 :]: cost
                    for key, cost in table.costs.items()
                    if key[place] == choice
                }
                self._enter(_Table(others, costs))
        return (), {(): choice}

    def _find_best(
        self, node: int, neighbours: tuple[int, ...], tables: Sequence[_Table]
    ) -> tuple[dict[tuple[str, ...], str], dict[tuple[str, ...], float]]:
        best: dict[tuple[str, ...], str] = {}
        costs: dict[tuple[str, ...], float] = {}
        for choices in itertools.product(*(self.allowed[neighbour] for neighbour in neighbours)):
            seen = dict(zip(neighbours, choices, strict=True))
            least = math.inf
            best[choices] = self.allowed[node][0]
            for choice in self.allowed[node]:
                seen[node] = choice
                cost = sum(table.costs[tuple(seen[other] for other in table.nodes)] for table in tables)
                if cost < least:
                    least, best[choices] = cost, choice
            costs[choices] = least
        return best, costs

    def _rank(self, node: int) -> tuple[bool, int, int]:
        return len(self.allowed[node]) > 1, len(self.neighbours[node]), node

    def _enter(self, table: _Table) -> None:
        for node in table.nodes:
            self.tables[node].append(table)
            self.neighbours[node].update(other for other in table.nodes if other != node)
            self.put_back(node)

    def _leave(self, node: int) -> None:
        self.nodes.remove(node)
        for other in self.neighbours[node]:
            self.neighbours[other].discard(node)
            self.put_back(other)
