"""An iteration of a net (forward, backward, update) on each engine and in PyTorch, on one thread.

OMP_NUM_THREADS=1 engine_nets.py lenet|cifar10_quick BATCH_SIZE NUM_ROUNDS [--layers]

Data are made up and lie in memory. The engines take turns, and processor time counts, since machines are busy. Prints
medians in ms as JSON, and with --layers those of each layer's forward and backward.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import torch
from made_up import make_solver, net_text
from nets import CONSTANT, make_steps, time_layers
from nets_torch import make_steps as make_torch_steps

from dtrain.core.engines import ENGINES, create_engine

NUM_ITERATIONS = 10  # of each engine in a round
NUM_PASSES = 30


def time_ms(run: Callable[[], object]) -> float:
    """Return the milliseconds of processor time that a call takes."""
    began = time.process_time()
    run()
    return 1000 * (time.process_time() - began)


def main() -> None:
    """Measure and print."""
    name, batch_size, num_rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    text = net_text(name, batch_size, CONSTANT)
    solvers = {engine: make_solver(text, create_engine(engine)) for engine in ENGINES}
    ways = {engine: make_steps(solver) for engine, solver in solvers.items()}
    torch.set_num_threads(1)
    _, ways["torch"] = make_torch_steps(text)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for steps in ways.values():
        steps(3)
    for _ in range(num_rounds):
        for way, steps in ways.items():
            times[way].append(time_ms(lambda steps=steps: steps(NUM_ITERATIONS)) / NUM_ITERATIONS)
    print(json.dumps({way: round(statistics.median(values), 3) for way, values in times.items()}))
    if "--layers" in sys.argv:
        for engine, solver in solvers.items():
            layers = time_layers(solver.net, NUM_PASSES, time.process_time)
            print(json.dumps({engine: dict(zip(solver.net.layer_names, layers, strict=True))}))
    for solver in solvers.values():
        solver.close()


if __name__ == "__main__":
    main()
