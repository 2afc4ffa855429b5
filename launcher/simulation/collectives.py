"""What an all-reduce costs on a cluster: one function for each algorithm, and the choice of the cheapest.

In a prediction this stands between the links and the timeline. S bytes, N ranks, latency a, bandwidth B:

    ring                 2 (N − 1) (a + S / (N B))
    recursive-doubling   ⌈log₂ N⌉ (a + S / B)
    halving-doubling     2 ⌈log₂ N⌉ a + 2 (1 − 1 / N) S / B
    hierarchical         inside each node, then across among one leader a node, then a broadcast inside

The costs of adding up are left out. Sources: "Optimization of Collective Communication Operations in MPICH" (Thakur,
Rabenseifner, Gropp, 2005) for the first three, dist/hierarchical.py for the last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dtrain.launcher.simulation.cluster import Cluster
from dtrain.launcher.simulation.links import Link


@dataclass(frozen=True)
class Network:
    """The links of a cluster. across: of a node to the others, shared by its ranks; inside: of a rank in its node."""

    across: Link
    inside: Link


FlatCost = Callable[[float, int, Link], float]
Cost = Callable[[float, Cluster, Network], float]


def ring(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Return the seconds of a ring, in which every rank sends a slice of 1/N to its neighbour, 2 (N − 1) times."""
    return 2 * (num_ranks - 1) * link.time_s(num_bytes / num_ranks)


def recursive_doubling(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Return the seconds of exchanging everything with ranks 1, 2, 4 … away: the least latency.

    A number of ranks between powers of two costs as the next one.
    """
    return _num_doublings(num_ranks) * link.time_s(num_bytes)


def halving_doubling(num_bytes: float, num_ranks: int, link: Link) -> float:
    """Return the seconds of a reduce-scatter by halving and an all-gather by doubling: a ring's bytes in fewer steps.

    A number of ranks between powers of two costs as the next one in steps.
    """
    steps = 2 * _num_doublings(num_ranks) * link.latency_s
    return steps + 2 * (1 - 1 / num_ranks) * num_bytes / link.bytes_per_s


FLAT: Mapping[str, FlatCost] = {
    "ring": ring,
    "recursive-doubling": recursive_doubling,
    "halving-doubling": halving_doubling,
}


def hierarchical(num_bytes: float, cluster: Cluster, network: Network) -> float:
    """Return the seconds of the cheapest all-reduce inside nodes, the cheapest across, and a broadcast inside."""
    inside = min(cost(num_bytes, cluster.ranks_per_node, network.inside) for cost in FLAT.values())
    across = min(cost(num_bytes, cluster.num_nodes, network.across) for cost in FLAT.values())
    back = network.inside.time_s(num_bytes) if cluster.num_nodes > 1 and cluster.ranks_per_node > 1 else 0.0
    return inside + across + back


def _ring_through_nodes(num_bytes: float, cluster: Cluster, network: Network) -> float:
    """Return the seconds of a ring in the order of the nodes: one rank of each sends out, the slower link counts."""
    links = _links_in_use(cluster, network)
    return max(ring(num_bytes, cluster.world_size, link) for link in links)


def _on_all_ranks(cost: FlatCost) -> Cost:
    """Return the cost where partners are far: all ranks of a node send out at once, and share its link."""

    def of_cluster(num_bytes: float, cluster: Cluster, network: Network) -> float:
        links = _links_in_use(cluster, network)
        if cluster.num_nodes > 1:
            share = network.across.bytes_per_s / cluster.ranks_per_node
            links = [Link(network.across.latency_s, share), *links[1:]]
        return max(cost(num_bytes, cluster.world_size, link) for link in links)

    return of_cluster


def _links_in_use(cluster: Cluster, network: Network) -> list[Link]:
    """Return the link across, if there are several nodes, and the link inside, if there are several ranks in one."""
    links = [network.across] * (cluster.num_nodes > 1) + [network.inside] * (cluster.ranks_per_node > 1)
    return links or [network.inside]


ALGORITHMS: Mapping[str, Cost] = {
    "ring": _ring_through_nodes,
    "recursive-doubling": _on_all_ranks(recursive_doubling),
    "halving-doubling": _on_all_ranks(halving_doubling),
    "hierarchical": hierarchical,
}


def all_reduce_cost(
    num_bytes: float, cluster: Cluster, network: Network, algorithm: str | None = None
) -> tuple[float, str]:
    """Return the seconds of an all-reduce of `num_bytes`, and the algorithm: the cheapest, or the one named."""
    if cluster.world_size == 1:
        return 0.0, "none"
    is_flat = 1 in (cluster.num_nodes, cluster.ranks_per_node)
    names = (FLAT if is_flat else ALGORITHMS) if algorithm is None else (algorithm,)
    return min((ALGORITHMS[name](num_bytes, cluster, network), name) for name in names)


def _num_doublings(num_ranks: int) -> int:
    """Return ⌈log₂ N⌉."""
    return (num_ranks - 1).bit_length()
