"""An iteration of a net (forward, backward, update) on each engine and in PyTorch, on one thread.

OMP_NUM_THREADS=1 engine_nets.py lenet|cifar10_quick BATCH_SIZE NUM_ROUNDS [--layers]

Data are made up and lie in memory. The engines take turns, and processor time counts, since machines are busy. Prints
medians in ms as JSON, and with --layers those of each layer's forward and backward.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scaling_torch import NETS as TORCH_NETS
from simulate import NETS, SOLVER
from torch import nn

from dtrain.core.engines import ENGINES, create_engine
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.create import create_communicator

NUM_ITERATIONS = 10  # of each engine in a round
LENET = Path(__file__).resolve().parents[3] / "configs/lenet/train_val.prototxt"
DUMMY_DATA = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
    shape { dim: 64 dim: 1 dim: 28 dim: 28 } shape { dim: 64 }
    data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 3 } } }
"""


def net_text(name: str, batch_size: int) -> str:
    """Return the prototxt of a net whose data are made up."""
    if name == "lenet":
        layers = re.split(r"(?m)^(?=layer \{)", LENET.read_text())
        kept = [layer for layer in layers if 'type: "Data"' not in layer and "phase: TEST" not in layer]
        text = kept[0] + DUMMY_DATA + "".join(kept[1:])
    else:
        text = (NETS / f"{name}.prototxt").read_text()
    return text.replace("dim: 64", f"dim: {batch_size}")


def our_solver(name: str, batch_size: int, engine: str) -> Solver:
    """Return a solver that trains the net on an engine."""
    with tempfile.TemporaryDirectory() as folder:
        net, path = Path(folder, "net.prototxt"), Path(folder, "solver.prototxt")
        net.write_text(net_text(name, batch_size))
        path.write_text(SOLVER.format(net=net) + "display: 0")
        recipe = read_recipe(os.fspath(path))
        return Solver(recipe, engine=create_engine(engine), communicator=create_communicator(None, {}))


def torch_steps(name: str, batch_size: int) -> Callable[[int], None]:
    """Return a function that takes a number of iterations in PyTorch."""
    torch.set_num_threads(1)
    make, shape = TORCH_NETS[name]
    net, loss = make(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=0.004)
    images, labels = torch.randn(batch_size, *shape), torch.full((batch_size,), 3)

    def steps(num_iterations: int) -> None:
        for _ in range(num_iterations):
            optimizer.zero_grad()
            loss(net(images), labels).backward()
            optimizer.step()

    return steps


def layer_times(solver: Solver) -> dict[str, tuple[float, float]]:
    """Return the median ms of each layer's forward and backward."""
    net, times = solver.net, {}
    for _ in range(30):
        for index in range(len(net.layers)):
            times.setdefault((index, 0), []).append(_time_ms(lambda i=index: net.forward_layer(i)))
        for index in reversed(range(len(net.layers))):
            times.setdefault((index, 1), []).append(_time_ms(lambda i=index: net.backward_layer(i)))
    medians = {key: round(statistics.median(values), 3) for key, values in times.items()}
    return {name: (medians[i, 0], medians[i, 1]) for i, name in enumerate(net.layer_names)}


def _time_ms(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return 1000 * (time.process_time() - began)


def main() -> None:
    """Measure and print."""
    name, batch_size, num_rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    solvers = {engine: our_solver(name, batch_size, engine) for engine in ENGINES}
    ways: dict[str, Callable[[int], None]] = {engine: solver.step for engine, solver in solvers.items()}
    ways["torch"] = torch_steps(name, batch_size)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for steps in ways.values():
        steps(3)
    for _ in range(num_rounds):
        for way, steps in ways.items():
            times[way].append(_time_ms(lambda steps=steps: steps(NUM_ITERATIONS)) / NUM_ITERATIONS)
    print(json.dumps({way: round(statistics.median(values), 3) for way, values in times.items()}))
    if "--layers" in sys.argv:
        print(json.dumps({engine: layer_times(solver) for engine, solver in solvers.items()}))
    for solver in solvers.values():
        solver.close()


if __name__ == "__main__":
    main()
