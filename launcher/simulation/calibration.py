"""What this machine's own communicator and cores give: the figures behind ``--link measured``.

In a prediction this takes the place of a link that the user describes. Everything here is collective: all ranks of a
job under mpirun take part.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from dtrain.core.net.net import Net
from dtrain.dist.communicator import Communicator
from dtrain.launcher.simulation.links import Link

T = TypeVar("T")

SIZES_BYTES = tuple(4096 * 4**k for k in range(7))  # 4 KB to 16 MB
_NUM_ROUNDS = 20
_NAP_S = 0.005


def on_rank_0(communicator: Communicator, action: Callable[[], T]) -> T | None:
    """Run `action` on rank 0 and return its result; other ranks sleep meanwhile, and get None. Collective."""
    result = action() if communicator.rank == 0 else None
    arrival = communicator.start_all_reduce(np.zeros(1, np.float32))
    while not arrival.test():
        time.sleep(_NAP_S)
    arrival.wait()
    return result


def measure_all_reduce(communicator: Communicator, sizes_bytes: Sequence[int] = SIZES_BYTES) -> list[float]:
    """Return the median seconds of an all-reduce of each size, by the clock of the slowest rank. Collective."""
    times = []
    for size in sizes_bytes:
        array = communicator.allocate(size // 4, np.dtype(np.float32))
        rounds = []
        for _ in range(_NUM_ROUNDS):
            communicator.barrier()
            began = time.perf_counter()
            communicator.start_all_reduce(array).wait()
            rounds.append(time.perf_counter() - began)
        times.append(statistics.median(rounds))
    return [float(value) for value in communicator.all_gather(np.array(times)).max(axis=0)]


def fit_ring(sizes_bytes: Sequence[int], times_s: Sequence[float], num_ranks: int) -> Link:
    """Return the link on which a ring of `num_ranks` takes times nearest to `times_s`, by their relative errors.

    A ring takes 2 (N − 1) a + 2 (N − 1) / (N B) · S: a line, of which neither end may be below 0.
    """
    times = np.array(times_s, float)
    columns = np.stack([np.ones(len(times)), np.array(sizes_bytes, float)], axis=1) / times[:, None]
    start, slope = np.linalg.lstsq(columns, np.ones(len(times)), rcond=None)[0]
    if start < 0:
        start, slope = 0.0, _fit_alone(columns[:, 1])
    elif slope <= 0:
        start, slope = _fit_alone(columns[:, 0]), 0.0
    steps = 2 * (num_ranks - 1)
    bytes_per_s = steps / (num_ranks * slope) if slope else float("inf")
    return Link(float(start) / steps, float(bytes_per_s))


def _fit_alone(column: np.ndarray) -> float:
    """Return the factor with which `column` is nearest to 1."""
    return float(column.sum() / (column @ column))


def measure_passes_together(net: Net, communicator: Communicator, num_iterations: int) -> float:
    """Return the mean seconds of a forward and backward when all ranks run theirs and then wait for each other.

    Collective.
    """
    for number in range(num_iterations + 1):
        if number == 1:  # the first one warms up
            began = time.perf_counter()
        net.forward()
        net.backward()
        net.clear_param_diffs()
        communicator.barrier()
    return (time.perf_counter() - began) / num_iterations
