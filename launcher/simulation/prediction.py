"""Iterations on clusters of growing size: the work of a rank, laid out on a network and on the cores of a node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dtrain.launcher.simulation.cluster import Cluster
from dtrain.launcher.simulation.collectives import Network, all_reduce_cost
from dtrain.launcher.simulation.timeline import Iteration, simulate
from dtrain.launcher.simulation.work import FLOAT_BYTES, Costs, Work


@dataclass(frozen=True)
class Machine:
    """What ranks run on.

    algorithm: of all-reduces, None: whichever is cheapest for a bucket. cores: of a node, which its ranks and their
    readers share; None: each rank has what it needs. slowdown: by how much a rank is slower, beyond that, when
    others compute on its node: they share caches and memory. overlaps: whether the network carries while the rank
    computes; if not, its cores do the carrying too.
    """

    network: Network
    algorithm: str | None = None
    cores: int | None = None
    slowdown: float = 1.0
    overlaps: bool = True

    def crowding(self, num_ranks: int) -> float:
        """Return how many ranks of a node with `num_ranks` share a core, at least 1."""
        return max(1.0, num_ranks / self.cores) if self.cores else 1.0

    def stretch(self, costs: Costs, num_ranks: int) -> float:
        """Return by how much computing is slower on a node with `num_ranks` than it is alone."""
        slowdown = self.slowdown if num_ranks > 1 else 1.0
        if not self.cores or not costs.pass_s:
            return slowdown
        busy = num_ranks * (1 + costs.reading_s / costs.pass_s)
        return slowdown * max(1.0, busy / self.cores)


@dataclass(frozen=True)
class Prediction:
    """An iteration on a cluster. algorithms: those that all-reduces use. efficiency: against as many lone ranks."""

    cluster: Cluster
    iteration: Iteration
    algorithms: tuple[str, ...]
    images_per_s: float
    efficiency: float


def predict(work: Work, machine: Machine, clusters: Sequence[Cluster]) -> list[Prediction]:
    """Return the prediction of each cluster; each rank has the same batch on all of them."""
    alone_s = predict_iteration(work, machine, Cluster(1, 1)).total_s
    predictions = []
    for cluster in clusters:
        iteration = predict_iteration(work, machine, cluster)
        images_per_s = (
            cluster.world_size * work.images / iteration.total_s if iteration.total_s else float("inf")
        )
        efficiency = alone_s / iteration.total_s if iteration.total_s else 1.0
        names = _algorithms(work, machine, cluster)
        predictions.append(Prediction(cluster, iteration, names, images_per_s, efficiency))
    return predictions


def predict_iteration(work: Work, machine: Machine, cluster: Cluster) -> Iteration:
    """Return one iteration of `work` on `cluster`."""
    num_ranks = cluster.ranks_per_node
    crowding = 1.0 if machine.overlaps else machine.crowding(num_ranks)

    def all_reduce_s(num_bytes: float) -> float:
        return all_reduce_cost(num_bytes, cluster, machine.network, machine.algorithm)[0] * crowding

    return simulate(work, all_reduce_s, machine.stretch(work.costs, num_ranks), machine.overlaps)


def _algorithms(work: Work, machine: Machine, cluster: Cluster) -> tuple[str, ...]:
    """Return the names of the algorithms in use, in the order of the buckets, each once."""
    sizes = [bucket.num_bytes * work.wire_bytes / FLOAT_BYTES for bucket in work.buckets]
    names = [all_reduce_cost(size, cluster, machine.network, machine.algorithm)[1] for size in sizes]
    return tuple(dict.fromkeys(names))
