"""Train a net of configs/ whose arithmetic is left out, and print what is left: what Python, ctypes and numpy take.

OMP_NUM_THREADS=1 overhead.py NAME NUM_ITERATIONS

As JSON: num_layers, the us of an iteration as `dtrain train` runs it (fused, memory shared), and of its parts.
Primitives of oneDNN are handed over as ever, to a function that does nothing; nets are narrow, and a batch is one
image, so that what numpy does with values (inner products, biases, the update) takes no time either. Each time is of
the processor and the least of all iterations: what others do on the machine only adds to it.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from made_up import make_solver, narrowed, net_text

from dtrain.core.engines import create_engine
from dtrain.core.engines.onednn.engine import OneDnnEngine
from dtrain.core.solver.solver import Solver

NUM_CHANNELS, NUM_TO_WARM_UP = 16, 5


def leave_out_arithmetic(engine: OneDnnEngine) -> None:
    """Let primitives be run by a function of C that does nothing; it returns 0 as its first two words differ."""
    nothing = ctypes.CDLL(None).pthread_equal
    nothing.argtypes, nothing.restype = engine.binding.execute.argtypes, ctypes.c_int
    engine.binding.execute = nothing


def least_us(run: Callable[[], object], num_times: int) -> float:
    """Return the us of the fastest run."""
    return min(_us(run) for _ in range(num_times))


def least_us_by_layer(solver: Solver, num_times: int) -> tuple[list[float], list[float]]:
    """Return the us of the fastest forward and backward of each layer, while iterations go on."""
    net = solver.net
    least: dict[tuple[str, int], float] = defaultdict(lambda: float("inf"))

    def timed(name: str, run: Callable[[int], Any]) -> Callable[[int], Any]:
        def run_timed(i: int) -> Any:
            began = time.process_time()
            result = run(i)
            least[name, i] = min(least[name, i], 1e6 * (time.process_time() - began))
            return result

        return run_timed

    with_times: Any = net
    with_times.run_layer = timed("forward", net.run_layer)
    with_times.backward_layer = timed("backward", net.backward_layer)
    solver.step(num_times)
    forward, backward = ([least[name, i] for i in range(len(net.layers))] for name in ("forward", "backward"))
    return forward, backward


def _us(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return 1e6 * (time.process_time() - began)


def main() -> None:
    """Print the times."""
    name, num_iterations = sys.argv[1], int(sys.argv[2])
    engine = create_engine("onednn")
    assert isinstance(engine, OneDnnEngine)
    solver = make_solver(narrowed(net_text(name, 1, 'type: "constant"'), NUM_CHANNELS), engine)
    leave_out_arithmetic(engine)
    solver.step(NUM_TO_WARM_UP)
    iteration_us = least_us(lambda: solver.step(1), num_iterations)
    update_us = least_us(lambda: solver.iteration.update(solver.iter), num_iterations)
    forward, backward = least_us_by_layer(solver, num_iterations)
    by_type: defaultdict[str, list[float]] = defaultdict(list)
    for layer, *us in zip(solver.net.layers, forward, backward, strict=True):
        by_type[layer.type].append(sum(us))
    layers_us = sum(forward) + sum(backward)
    print(
        json.dumps(
            {
                "num_layers": len(forward),
                "iteration_us": iteration_us,
                "forward_us": sum(forward),
                "backward_us": sum(backward),
                "update_us": update_us,
                "rest_us": iteration_us - layers_us - update_us,
                "by_type": {kind: [len(us), sum(us) / len(us)] for kind, us in by_type.items()},
            }
        )
    )
    solver.close()


if __name__ == "__main__":
    main()
