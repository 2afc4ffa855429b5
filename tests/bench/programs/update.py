"""Update the params of a net by made-up gradients, on OMP_NUM_THREADS threads: caffenet|resnet50 NUM_ROUNDS.

SGD with momentum and weight decay, and Adam, as `dtrain train` runs them, which leaves the diffs as they are; beside
them SGD that shows its changes there, a copy of as many arrays as SGD changes, shared among as many threads, and
PyTorch's optimizers on the same sizes, all in turn. Prints as one line of JSON the median in ms of each way, and as
"PEER/OURS" the median over the rounds of its time over that of ours in the same round.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from overlap_nets import NETS

from dtrain.core.blob import Blob
from dtrain.core.net.arena import Arena
from dtrain.core.net.params import Param
from dtrain.core.solver.updater import Updater
from dtrain.data.workers import Workers
from dtrain.proto import caffe_pb2

NUM_THREADS = int(os.environ["OMP_NUM_THREADS"])
RATE, DECAY = 0.01, 0.0005
COPIED = 1 << 16  # values at a time

Ways = dict[str, tuple[Callable[[], object], Callable[[], object]]]  # what comes before, and what is timed


def our_ways(sizes: Sequence[int]) -> Ways:
    """Return our updates, each of a net of its own."""
    ways: Ways = {}
    for name, shows_changes in (("SGD", False), ("Adam", False), ("SGD", True)):
        params = [Param(Blob((size,)), i, 0, "", None, None) for i, size in enumerate(sizes)]
        arena = Arena(params)
        arena.data[...] = 1
        fields = {"base_lr": RATE, "lr_policy": "fixed", "momentum": 0.9, "weight_decay": DECAY}
        updater = Updater(caffe_pb2.SolverParameter(type=name, **fields), params, arena)
        updater.shows_changes = shows_changes
        title = name.lower() + "_shown" * shows_changes
        ways[title] = (partial(arena.diff.fill, 0.001), partial(updater.apply, 1, 2))
    return ways


def copying(size: int, num_arrays: int) -> Callable[[], None]:
    """Return what copies so many arrays of `size` values."""
    workers = Workers(NUM_THREADS)
    pairs = [(np.ones(size, np.float32), np.ones(size, np.float32)) for _ in range(num_arrays)]

    def copy(start: int) -> None:
        for to, of in pairs:
            to[start * COPIED : (start + 1) * COPIED] = of[start * COPIED : (start + 1) * COPIED]

    return partial(workers.run, copy, -(-size // COPIED))


def torch_ways(sizes: Sequence[int]) -> Ways:
    """Return PyTorch's optimizers, which all change the same params."""
    import torch

    torch.set_num_threads(NUM_THREADS)
    params = [torch.nn.Parameter(torch.ones(size)) for size in sizes]
    for param in params:
        param.grad = torch.full_like(param, 0.001)
    ways: Ways = {}
    for how in ("foreach", "fused"):
        sgd = torch.optim.SGD(params, lr=RATE, momentum=0.9, weight_decay=DECAY, **{how: True})
        adam = torch.optim.Adam(params, lr=RATE, weight_decay=DECAY, **{how: True})
        ways[f"torch_sgd_{how}"] = (lambda: None, sgd.step)
        ways[f"torch_adam_{how}"] = (lambda: None, adam.step)
    return ways


def main() -> None:
    """Measure and print."""
    sizes = [layer.num_params for layer in NETS[sys.argv[1]]() if layer.num_params]
    ways = our_ways(sizes) | {"copy": (lambda: None, copying(sum(sizes), 2))}
    if importlib.util.find_spec("torch"):
        ways |= torch_ways(sizes)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(int(sys.argv[2]) + 1):
        for name, (prepare, run) in ways.items():
            prepare()
            began = time.perf_counter()
            run()
            if number:  # the first one touches new memory
                times[name].append(1000 * (time.perf_counter() - began))
    result = {name: statistics.median(values) for name, values in times.items()}
    for ours in ("sgd", "adam"):
        for peer, values in times.items():
            rounds = zip(values, times[ours], strict=True)
            result[f"{peer}/{ours}"] = statistics.median(its / own for its, own in rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
