"""The shape of the job to predict: NODES×RANKS-PER-NODE, and the smaller ones that lead up to it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dtrain.core.errors import UserError

MAX_RANKS = 4096


@dataclass(frozen=True)
class Cluster:
    """So many nodes with as many ranks each."""

    num_nodes: int
    ranks_per_node: int

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self.num_nodes * self.ranks_per_node

    def __str__(self) -> str:
        return f"{self.num_nodes}x{self.ranks_per_node}"


def parse_cluster(text: str) -> Cluster:
    """Return the cluster that 512x8 or 512×8 describes. Raises UserError for other texts and above MAX_RANKS."""
    found = re.fullmatch(r"([1-9]\d{0,5})[x×]([1-9]\d{0,5})", text.strip().lower())
    if found is None:
        raise UserError(f'--simulate: must be NODES×RANKS-PER-NODE such as 512x8, got "{text}"')
    cluster = Cluster(int(found[1]), int(found[2]))
    if cluster.world_size > MAX_RANKS:
        raise UserError(f"--simulate: must be at most {MAX_RANKS} ranks, got {text} = {cluster.world_size}")
    return cluster


def clusters_up_to(largest: Cluster) -> list[Cluster]:
    """Return 1 rank, 2, 4 … until a node is full, then 2 nodes, 4 …; the last one is `largest`."""
    clusters = [Cluster(1, ranks) for ranks in _doubling(largest.ranks_per_node)]
    return clusters + [Cluster(nodes, largest.ranks_per_node) for nodes in _doubling(largest.num_nodes)[1:]]


def _doubling(end: int) -> list[int]:
    """Return 1, 2, 4 … below `end`, and `end`."""
    numbers = [1]
    while 2 * numbers[-1] < end:
        numbers.append(2 * numbers[-1])
    return numbers if end == 1 else [*numbers, end]
