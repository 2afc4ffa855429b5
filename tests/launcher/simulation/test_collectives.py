"""The costs of all-reduces against their closed forms, and what must hold for any link."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.launcher.simulation.cluster import Cluster
from dtrain.launcher.simulation.collectives import (
    ALGORITHMS,
    FLAT,
    Network,
    all_reduce_cost,
    halving_doubling,
    hierarchical,
    recursive_doubling,
    ring,
)
from dtrain.launcher.simulation.links import FREE, Link

LINK = Link(5e-6, 25e9)
FAST = Link(2e-6, 200e9)
NETWORK = Network(LINK, FAST)

LINKS = st.builds(
    Link, st.floats(0, 1e-3, allow_subnormal=False), st.floats(1e6, 1e12, allow_subnormal=False)
)
NETWORKS = st.builds(Network, LINKS, LINKS)
SIZES = st.integers(0, 10**9)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 8, 4096])
def test_ring_takes_its_closed_form(num_ranks: int) -> None:
    expected = 2 * (num_ranks - 1) * (5e-6 + 1e8 / (num_ranks * 25e9))
    assert ring(1e8, num_ranks, LINK) == pytest.approx(expected)


@pytest.mark.parametrize(("num_ranks", "rounds"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (4096, 12)])
def test_recursive_doubling_sends_all_in_each_round(num_ranks: int, rounds: int) -> None:
    assert recursive_doubling(1e8, num_ranks, LINK) == pytest.approx(rounds * (5e-6 + 1e8 / 25e9))


def test_halving_doubling_of_8_ranks_sends_halves_quarters_and_eighths_twice() -> None:
    expected = 2 * sum(5e-6 + 1e8 * share / 25e9 for share in (1 / 2, 1 / 4, 1 / 8))
    assert halving_doubling(1e8, 8, LINK) == pytest.approx(expected)


def test_hierarchical_adds_inside_across_and_back() -> None:
    inside = halving_doubling(1e8, 8, FAST)
    across = halving_doubling(1e8, 4, LINK)
    assert hierarchical(1e8, Cluster(4, 8), NETWORK) == pytest.approx(inside + across + 2e-6 + 1e8 / 200e9)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(("cluster", "link"), [(Cluster(1, 8), FAST), (Cluster(8, 1), LINK)])
def test_algorithm_uses_the_only_link_that_ranks_need(name: str, cluster: Cluster, link: Link) -> None:
    cost = (
        min(flat(1e8, 8, link) for flat in FLAT.values())
        if name == "hierarchical"
        else FLAT[name](1e8, 8, link)
    )
    assert ALGORITHMS[name](1e8, cluster, NETWORK) == pytest.approx(cost)


def test_ring_through_nodes_goes_at_the_pace_of_the_slower_link() -> None:
    assert ALGORITHMS["ring"](1e8, Cluster(4, 8), NETWORK) == pytest.approx(ring(1e8, 32, LINK))
    assert ALGORITHMS["ring"](1e8, Cluster(4, 8), Network(FAST, LINK)) == pytest.approx(ring(1e8, 32, LINK))


@pytest.mark.parametrize("name", ["recursive-doubling", "halving-doubling"])
def test_ranks_that_send_at_once_share_the_link_of_their_node(name: str) -> None:
    shared = Link(LINK.latency_s, LINK.bytes_per_s / 8)
    assert ALGORITHMS[name](1e8, Cluster(4, 8), NETWORK) == pytest.approx(FLAT[name](1e8, 32, shared))


@given(SIZES, st.integers(1, 64), st.integers(1, 64), NETWORKS)
def test_all_reduce_cost_is_that_of_the_cheapest(
    num_bytes: int, num_nodes: int, ranks_per_node: int, network: Network
) -> None:
    cluster = Cluster(num_nodes, ranks_per_node)
    seconds, name = all_reduce_cost(num_bytes, cluster, network)
    if cluster.world_size == 1:
        assert (seconds, name) == (0.0, "none")
    else:
        costs = {known: all_reduce_cost(num_bytes, cluster, network, known)[0] for known in ALGORITHMS}
        assert seconds == costs[name]
        assert seconds <= min(costs.values()) * (1 + 1e-12)


@given(SIZES, st.integers(0, 5), st.integers(0, 5), NETWORKS, st.sampled_from([None, *ALGORITHMS]))
def test_all_reduce_cost_never_falls_when_nodes_or_ranks_are_doubled(
    num_bytes: int, log_nodes: int, log_ranks: int, network: Network, algorithm: str | None
) -> None:
    cost = all_reduce_cost(num_bytes, Cluster(2**log_nodes, 2**log_ranks), network, algorithm)[0]
    more_nodes = Cluster(2 ** (log_nodes + 1), 2**log_ranks)
    assert cost <= all_reduce_cost(num_bytes, more_nodes, network, algorithm)[0] * (1 + 1e-9)
    if log_nodes == 0:  # while a node fills up
        more_ranks = Cluster(1, 2 ** (log_ranks + 1))
        assert cost <= all_reduce_cost(num_bytes, more_ranks, network, algorithm)[0] * (1 + 1e-9)


@given(SIZES, st.integers(1, 4096), LINKS, st.sampled_from(sorted(FLAT)))
def test_flat_cost_is_never_below_what_each_rank_must_send(
    num_bytes: int, num_ranks: int, link: Link, name: str
) -> None:
    least = (1 - 1 / num_ranks) * num_bytes / link.bytes_per_s + math.ceil(
        math.log2(num_ranks)
    ) * link.latency_s
    assert FLAT[name](num_bytes, num_ranks, link) >= least * (1 - 1e-9)


@pytest.mark.parametrize(("num_bytes", "name"), [(4, "recursive-doubling"), (1e9, "halving-doubling")])
def test_all_reduce_cost_of_few_and_many_bytes_chooses_by_steps_and_by_bytes(
    num_bytes: float, name: str
) -> None:
    assert all_reduce_cost(num_bytes, Cluster(1, 8), NETWORK)[1] == name


def test_all_reduce_cost_on_slow_links_between_full_nodes_chooses_hierarchical() -> None:
    assert all_reduce_cost(1e6, Cluster(16, 8), Network(Link(5e-5, 1e9), FAST))[1] == "hierarchical"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_all_reduce_cost_on_a_free_link_is_nothing(name: str) -> None:
    assert all_reduce_cost(1e9, Cluster(512, 8), Network(FREE, FREE), name)[0] == 0
