from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from dtrain.core.engines.onednn.planning import plan

Edges = Sequence[tuple[int, int, float]]


def cost_of(choices: Sequence[str], costs: Sequence[Mapping[str, float]], edges: Edges) -> float:
    """Return what a plan costs."""
    own = sum(each[choice] for each, choice in zip(costs, choices, strict=True))
    return own + sum(cost for a, b, cost in edges if choices[a] != choices[b])


def least_cost(costs: Sequence[Mapping[str, float]], edges: Edges) -> float:
    """Return what the best of all plans costs."""
    return min(cost_of(choices, costs, edges) for choices in itertools.product(*costs))


def draw(seed: int, edges: Sequence[tuple[int, int]], num_nodes: int) -> tuple[list[dict[str, float]], Edges]:
    """Return costs in whole numbers, so that sums are exact; some nodes have no choice, or one that can't be."""
    random = np.random.default_rng(seed)
    costs = []
    for _ in range(num_nodes):
        own = {choice: float(random.integers(0, 20)) for choice in "abc"[: random.integers(1, 4)]}
        if len(own) == 3 and random.random() < 0.3:
            own["b"] = math.inf
        costs.append(own)
    return costs, [(i, j, float(random.integers(0, 12))) for i, j in edges]


CHAIN = [(i, i + 1) for i in range(8)]
TREE = [(i, (i - 1) // 2) for i in range(1, 9)]
DIAMONDS = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (3, 5), (3, 6), (4, 7), (5, 7), (6, 7), (7, 8), (0, 8)]
ALL = list(itertools.combinations(range(9), 2))
TWICE = [*CHAIN, *CHAIN, (3, 3), (8, 0)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("edges", [CHAIN, TREE, DIAMONDS, ALL, TWICE, []])
def test_plan_of_a_graph_is_as_good_as_the_best_of_all(seed: int, edges: list[tuple[int, int]]) -> None:
    costs, weighted = draw(seed, edges, 9)
    assert cost_of(plan(costs, weighted), costs, weighted) == least_cost(costs, weighted)


def test_plan_takes_the_dearer_choice_where_changing_costs_more() -> None:
    costs = [{"a": 0.0, "b": 9.0}, {"a": 2.0, "b": 1.0}, {"a": 0.0, "b": 9.0}]
    assert plan(costs, [(0, 1, 1.0), (1, 2, 1.0)]) == ["a", "a", "a"]
    assert plan(costs, [(0, 1, 0.4), (1, 2, 0.4)]) == ["a", "b", "a"]


def test_plan_of_equal_costs_takes_the_first_choice() -> None:
    assert plan([{"a": 1.0, "b": 1.0}, {"b": 1.0, "a": 1.0}], []) == ["a", "b"]
    assert plan([], []) == []


@pytest.mark.parametrize("seed", range(5))
def test_plan_with_more_neighbours_than_it_may_look_at_is_still_one(seed: int) -> None:
    """A hub that is fixed beside those that are fixed already, and the best for all others beside it."""
    edges = [(0, i) for i in range(1, 9)]
    costs, weighted = draw(seed, edges, 9)
    chosen = plan(costs, weighted, most_neighbours=0)
    assert cost_of(chosen, costs, weighted) < math.inf
    fixed = [{chosen[0]: costs[0][chosen[0]]}, *costs[1:]]
    assert cost_of(chosen, costs, weighted) == least_cost(fixed, weighted)
    beside_fixed = {
        choice: own + sum(cost for _, i, cost in weighted if len(costs[i]) == 1 and choice not in costs[i])
        for choice, own in costs[0].items()
    }
    assert beside_fixed[chosen[0]] == min(beside_fixed.values())


@pytest.mark.parametrize("seed", range(5))
def test_plan_beside_a_neighbour_of_all_that_has_no_choice_is_exact(seed: int) -> None:
    """As what is plain in a net is, however much reads and writes it."""
    edges = [*((0, i) for i in range(1, 9)), *((i, i + 1) for i in range(1, 8))]
    costs, weighted = draw(seed, edges, 9)
    costs[0] = {"a": 1.0}
    chosen = plan(costs, weighted, most_neighbours=2)
    assert cost_of(chosen, costs, weighted) == least_cost(costs, weighted)


def test_plan_of_a_long_net_with_branches_is_the_best() -> None:
    """Diamonds one behind the other, each better off with b; the way there is paid once, where it costs least."""
    num_diamonds = 500
    edges = []
    for first in range(0, 3 * num_diamonds, 3):
        edges += [(first, first + 1, 2.0), (first, first + 2, 2.0)]
        edges += [(first + 1, first + 3, 2.0), (first + 2, first + 3, 2.0)]
    costs = [{"a": 0.0, "b": 0.5} if i % 3 else {"a": 1.5, "b": 0.0} for i in range(3 * num_diamonds + 1)]
    costs[0] = {"a": 0.0}
    chosen = plan(costs, edges)
    assert chosen == ["a"] * 3 + ["b"] * (3 * num_diamonds - 2)
    assert cost_of(chosen, costs, edges) == 2 * 2.0 + 2 * 0.5 * (num_diamonds - 1)
