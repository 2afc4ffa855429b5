"""Train a net of configs/ on made-up images in memory, in turns: one process of the benchmark of nets.

OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 nets.py NAME BATCH_SIZE NET [bf16]     NET: where its prototxt is written to

Beside what turns.py answers: "num_params", "work", the operations and bytes of each layer, and "layers", with the ms
that each takes.
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
from dtrain.launcher.flops import count_flops, count_multiply_adds

CONSTANT = 'type: "constant"'
NUM_PASSES = 5
VIEWS = ("Flatten", "Reshape", "Split")


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


def describe_work(net: Net, value_bytes: int) -> list[dict[str, Any]]:
    """Return for each layer, those that run as one being one, its name and type, and for forward and backward the
    operations of its matrix products and the bytes of what it must read and write.

    value_bytes: of each value between layers.
    """
    multiplies, flops = count_multiply_adds(net), list(zip(*count_flops(net), strict=True))
    return [
        {
            "name": " + ".join(net.layer_names[i] for i in unit),
            "type": " + ".join(net.layers[i].type for i in unit),
            "flops": [sum(flops[i][k] for i in unit if multiplies[i]) for k in range(2)],
            "bytes": _bytes(net, unit, value_bytes),
        }
        for unit in _units(net)
    ]


def describe_layers(net: Net, value_bytes: int) -> list[dict[str, Any]]:
    """Return the same with the ms of forward and backward."""
    times = time_layers(net, NUM_PASSES)
    return [
        {**work, "ms": [sum(times[i][k] for i in unit) for k in range(2)]}
        for work, unit in zip(describe_work(net, value_bytes), _units(net), strict=True)
    ]


def _units(net: Net) -> list[range]:
    """Return the indices of the layers that run as one, of most one alone, in the order of the net."""
    groups = {group.first: group for group in net.groups.values()}
    alone = [i for i in range(len(net.layers)) if i not in net.groups]
    return [range(i, groups[i].last + 1 if i in groups else i + 1) for i in sorted([*groups, *alone])]


def _bytes(net: Net, unit: range, value_bytes: int) -> tuple[int, int]:
    """Return what layers as one move at least: what comes in from outside, goes out and is learned, in forward; in
    backward the gradients of that and the data that are read again.

    What only shows a blob moves nothing in forward, what has no bottom nothing at all.
    """
    group, last = net.groups.get(unit[0]), unit[-1]
    places = group.bottoms if group else [(unit[0], place) for place in range(len(net.bottoms[unit[0]]))]
    bottoms = sum(net.bottoms[i][place].count for i, place in places)
    wanted = sum(net.bottoms[i][place].count for i, place in places if net.needs[i].bottoms[place])
    tops = sum(blob.count for blob in net.tops[last])
    params = 4 * sum(blob.count for i in unit for blob in net.layers[i].blobs)
    if not bottoms:
        return 0, 0
    again = net.layers[unit[0]].backward_reads_bottoms * bottoms + net.layers[last].backward_reads_tops * tops
    forward = 0 if net.layers[last].type in VIEWS else value_bytes * (bottoms + tops) + params
    backward = value_bytes * (tops + wanted + again) + 2 * params
    return forward, backward if any(net.needs[i].layer for i in unit) else 0


def _time_ms(run: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    run()
    return 1000 * (clock() - began)


def main() -> None:
    """Train in turns."""
    name, batch_size, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    in_bf16 = "bf16" in sys.argv[4:]
    precision, value_bytes = ("BF16", 2) if in_bf16 else ("FLOAT32", 4)
    text = net_text(name, batch_size, CONSTANT)
    path.write_text(text)
    rates = f"base_lr: {BASE_LR} momentum: {MOMENTUM} weight_decay: {WEIGHT_DECAY}"
    rates += f" dtrain_param {{ precision: {precision} }}"
    solver = make_solver(text, create_engine(None, precision), rates)
    net = solver.net
    take_turns(
        make_steps(solver),
        {
            "num_params": lambda: sum(p.blob.count for p in net.learnable_params if not p.is_statistic),
            "work": lambda: describe_work(net, value_bytes),
            "layers": lambda: describe_layers(net, value_bytes),
        },
    )
    solver.close()


if __name__ == "__main__":
    main()
