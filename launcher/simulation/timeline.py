"""One iteration as a sequence of events: backward makes buckets ready, the network carries them one by one.

compute   forward … │ backward: layer n … │ layer 1 │ (wait) update bucket 0 │ update bucket 1 …
network                      │ bucket 0 │ bucket 1 …         │ last bucket │
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dtrain.launcher.simulation.work import FLOAT_BYTES, Work

AllReduceCost = Callable[[float], float]


@dataclass(frozen=True)
class Iteration:
    """How long an iteration takes. compute_s: of passes and updates; communication_s: sum over all buckets."""

    total_s: float
    compute_s: float
    communication_s: float
    alone_s: float

    @property
    def hidden_share(self) -> float:
        """The share of the communication that the iteration is not longer for; 1 where there is none."""
        if not self.communication_s:
            return 1.0
        share = 1.0 - (self.total_s - self.alone_s) / self.communication_s
        return min(1.0, max(0.0, share))  # times are rounded


def simulate(
    work: Work, all_reduce_s: AllReduceCost, stretch: float = 1.0, overlaps: bool = True
) -> Iteration:
    """Return one iteration in the steady state.

    Arguments:
        all_reduce_s: the seconds of an all-reduce of so many bytes.
        stretch: by how much computing is slower than in the costs, since ranks share cores.
        overlaps: whether the network carries while the rank computes; if not, each waits for the other.
    """
    costs = [all_reduce_s(bucket.num_bytes * work.wire_bytes / FLOAT_BYTES) for bucket in work.buckets]
    compute_s = (work.iter_size * work.costs.pass_s + work.costs.update_s) * stretch
    reading_s = (
        work.iter_size * work.costs.reading_s
    )  # ahead in threads of its own: it counts where it is slower
    communication_s = sum(costs)
    if not overlaps:
        total_s = compute_s + communication_s
    elif work.stale:
        total_s = max(compute_s, communication_s)
    else:
        total_s = _end_of_updates(work, costs, stretch)
    alone_s = max(compute_s, reading_s)
    return Iteration(max(total_s, reading_s), compute_s, communication_s, alone_s)


def _end_of_updates(work: Work, costs: list[float], stretch: float) -> float:
    """Return when the last bucket has been updated."""
    ready_s, backward_end_s = _ready_times(work, stretch)
    arrivals, network_s = [], 0.0
    for bucket, cost in zip(work.buckets, costs, strict=True):
        network_s = max(network_s, ready_s[bucket.layer_index]) + cost
        arrivals.append(network_s)
    if work.waits_for_all:
        arrivals = [network_s] * len(arrivals)
    now = backward_end_s
    num_bytes = work.gradient_bytes
    for bucket, arrival in zip(work.buckets, arrivals, strict=True):
        now = max(now, arrival) + work.costs.update_s * stretch * bucket.num_bytes / num_bytes
    return now


def _ready_times(work: Work, stretch: float) -> tuple[list[float], float]:
    """Return when the backward of each layer ends in the last pass, and when all of it does."""
    now = ((work.iter_size - 1) * work.costs.pass_s + sum(work.costs.forward_s)) * stretch
    ends = [0.0] * len(work.costs.backward_s)
    for index in reversed(range(len(ends))):
        now += work.costs.backward_s[index] * stretch
        ends[index] = now
    return ends, now
