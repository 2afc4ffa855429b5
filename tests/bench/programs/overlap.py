"""A rank of the overlap benchmark: NET MODE COMPUTE_SHARES NUM_TRIALS.

Backward is played, layer by layer from the last, with the gradients of a real net: MODE "sleep" leaves the core to
others meanwhile, as a GPU's backward does; "busy" computes on it, as much as takes the time alone. COMPUTE_SHARES,
such as 1,2: how long all layers take, over what the reduction takes alone. In each trial compute alone, reduction
alone and both together are timed in turn. Rank 0 prints JSON lists of seconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
from overlap_nets import NETS, Layer

from dtrain.dist.buckets import plan_buckets
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator
from dtrain.dist.reducer import Reducer
from dtrain.proto import caffe_pb2

PRODUCTS_A_VALUE = 60  # what passing over a value of a layer without weights costs, in multiplications

Wait = Callable[[float], None]


class Backward:
    """The layers of a net in the order of backward, with the buckets of their gradients."""

    def __init__(self, layers: Sequence[Layer], communicator: Communicator) -> None:
        self._communicator = communicator
        backward = list(reversed(layers))
        with_params = [i for i, layer in enumerate(backward) if layer.num_params]
        sizes = [backward[i].num_params for i in with_params]
        plan = plan_buckets([4 * size for size in sizes], caffe_pb2.DtrainSolverParameter().bucket_bytes)
        ends = np.cumsum([0, *sizes])
        slices = [slice(int(ends[bucket.start]), int(ends[bucket.stop])) for bucket in plan]
        self._ready_at = [with_params[bucket.stop - 1] for bucket in plan]
        self._sizes = [float(part.stop - part.start) / sum(sizes) for part in slices]
        arena = communicator.allocate(sum(sizes), np.dtype(np.float32))
        self._reducer = Reducer(communicator, arena, slices, [f"{k}" for k in range(len(plan))])
        costs = np.array([_cost(layer) for layer in backward])
        self._shares = costs / costs.sum()

    @property
    def schedule(self) -> list[tuple[float, float]]:
        """For each bucket the share of the compute that has passed when it is ready, and its share of the bytes."""
        passed = np.cumsum(self._shares)
        return [(float(passed[i]), size) for i, size in zip(self._ready_at, self._sizes, strict=True)]

    def time_reduction(self) -> float:
        """Return the seconds of the reduction alone. Collective."""
        return self._timed(self._complete)

    def time_compute(self, seconds: float, wait: Wait) -> float:
        """Return the seconds of compute alone. Collective."""
        return self._timed(lambda: [wait(float(share) * seconds) for share in self._shares])

    def time_both(self, seconds: float, wait: Wait) -> float:
        """Return the seconds of compute with the reduction behind it. Collective."""

        def run() -> None:
            for i, share in enumerate(self._shares):
                wait(float(share) * seconds)
                while self._reducer.num_started < len(self._ready_at) and (
                    self._ready_at[self._reducer.num_started] <= i
                ):
                    self._reducer.start_to(self._reducer.num_started + 1)
                self._reducer.move_on()
            self._complete()

        return self._timed(run)

    def _complete(self) -> None:
        for _ in self._reducer.complete():
            pass

    def _timed(self, run: Callable[[], object]) -> float:
        self._communicator.barrier()
        began = time.perf_counter()
        run()
        self._communicator.barrier()
        return time.perf_counter() - began


def _cost(layer: Layer) -> float:
    """Return what backward costs: two products for each of forward's, for bottom and weights."""
    return 2.0 * layer.num_products * (1 if layer.num_params > 10_000 else PRODUCTS_A_VALUE)


def make_busy() -> Wait:
    """Return what computes on one core for the time it is given, measured now, while nothing else is done."""
    matrix = np.ones((64, 64), np.float32)

    def multiply(count: int) -> None:
        for _ in range(count):
            matrix @ matrix

    multiply(1000)
    began = time.perf_counter()
    multiply(20_000)
    per_s = 20_000 / (time.perf_counter() - began)
    return lambda seconds: multiply(round(seconds * per_s))


def main() -> None:
    """Time one net in one mode."""
    net, mode, compute_shares, num_trials = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    communicator = create_communicator(None, os.environ)
    backward = Backward(NETS[net](), communicator)
    wait = time.sleep if mode == "sleep" else make_busy()
    alone_s = np.array([np.median([backward.time_reduction() for _ in range(3)])])
    communicator.broadcast(alone_s)
    results = []
    for share in compute_shares.split(","):
        seconds = float(alone_s[0]) * float(share)
        for _ in range(num_trials):
            compute_s, reduction_s = backward.time_compute(seconds, wait), backward.time_reduction()
            both_s = backward.time_both(seconds, wait)
            results.append((float(share), compute_s, reduction_s, both_s))
    if communicator.rank == 0:
        print(
            json.dumps({"schedule": backward.schedule, "communicator": communicator.name, "trials": results})
        )
    communicator.close()


if __name__ == "__main__":
    main()
