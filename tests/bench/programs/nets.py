"""Train a net of configs/ on made-up images in memory, in turns: one process of the benchmark of nets.

OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 nets.py NAME BATCH_SIZE NET     NET: where its prototxt is written to

Beside what turns.py answers: "num_params", "flops" (of an iteration, counted) and "layers", what each layer takes.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from made_up import make_solver, net_text
from turns import BASE_LR, MOMENTUM, WEIGHT_DECAY, made_up_batch, now, take_turns

from dtrain.core.engines import create_engine
from dtrain.core.net.net import Net
from dtrain.core.solver.solver import Solver
from dtrain.launcher.flops import count_flops

CONSTANT = 'type: "constant"'
NUM_PASSES = 5


def make_steps(solver: Solver) -> Callable[[int], None]:
    """Put a batch in the place of the DummyData's constants; return what trains on it a number of iterations."""
    blobs = solver.net.blobs
    batch = made_up_batch(solver.net.recipe.document.message)
    for top, values in batch.items():
        blobs[top].write_data()[...] = values

    def steps(num_iterations: int) -> None:
        for _ in range(num_iterations):
            for top in batch:
                blobs[top].update_data()  # as if new: copies in other layouts are void
            solver.step(1)

    return steps


def time_layers(net: Net, num_passes: int, clock: Callable[[], float] = now) -> list[tuple[float, float]]:
    """Return the median ms of each layer's forward and backward over some passes, after one to warm up."""
    times: dict[tuple[int, int], list[float]] = {}
    for _ in range(num_passes + 1):
        for param in net.learnable_params:
            param.blob.update_data()  # as an update does: copies in other layouts are void
        for index in range(len(net.layers)):
            times.setdefault((index, 0), []).append(_time_ms(lambda i=index: net.forward_layer(i), clock))
        for index in reversed(range(len(net.layers))):
            times.setdefault((index, 1), []).append(_time_ms(lambda i=index: net.backward_layer(i), clock))
    medians = {key: statistics.median(values[1:]) for key, values in times.items()}
    return [(medians[i, 0], medians[i, 1]) for i in range(len(net.layers))]


def describe_layers(net: Net) -> list[dict[str, Any]]:
    """Return for each layer its name, type, ms and counted work, forward and backward, and bytes of its blobs."""
    return [
        {"name": layer.name, "type": layer.type, "ms": ms, "flops": flops, "bytes": num_bytes}
        for layer, ms, flops, num_bytes in zip(
            net.layers, time_layers(net, NUM_PASSES), _flops(net), _bytes(net), strict=True
        )
    ]


def _flops(net: Net) -> list[tuple[float, float]]:
    return list(zip(*count_flops(net), strict=True))


def _bytes(net: Net) -> list[int]:
    """Return the bytes of each layer's bottoms, tops and params: what a pass over it reads or writes at least."""
    return [
        4 * sum(blob.count for blob in {id(blob): blob for blob in (*bottom, *top, *layer.blobs)}.values())
        for layer, bottom, top in zip(net.layers, net.bottoms, net.tops, strict=True)
    ]


def _time_ms(run: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    run()
    return 1000 * (clock() - began)


def main() -> None:
    """Train in turns."""
    name, batch_size, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    text = net_text(name, batch_size, CONSTANT)
    path.write_text(text)
    solver = make_solver(
        text, create_engine(), f"base_lr: {BASE_LR} momentum: {MOMENTUM} weight_decay: {WEIGHT_DECAY}"
    )
    net = solver.net
    take_turns(
        make_steps(solver),
        {
            "num_params": lambda: sum(p.blob.count for p in net.learnable_params if not p.is_statistic),
            "flops": lambda: sum(map(sum, _flops(net))),
            "layers": lambda: describe_layers(net),
        },
    )
    solver.close()


if __name__ == "__main__":
    main()
