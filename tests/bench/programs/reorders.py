"""List the reorders of one training iteration of a net of configs/: one process of the benchmark of reorders.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 reorders.py NAME BATCH_SIZE

Prints JSON: "iteration_ms" and "reorders", for each kind of reorder {"part", "what", "layer", "source", "target",
"count", "bytes", "ms"}: of the data or diff of which blob or param, while which layer ran, from which layout to
which, how often in an iteration, what is read and written. Times are medians of some iterations, of processor time.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from made_up import make_solver, net_text
from nets import CONSTANT, make_steps
from turns import now

from dtrain.core.engines import create_engine
from dtrain.core.engines.onednn.layout_names import layout_name
from dtrain.core.engines.onednn.layouts import Layout
from dtrain.core.net.net import Net
from dtrain.core.solver.solver import Solver
from dtrain.core.tensor import HOST, Memory, Storage

NUM_WARM_UP, NUM_ITERATIONS = 2, 5
BEFORE_THE_NET = "solver"


class Trace:
    """Notes each time that a tensor of `net` brings its values into another memory."""

    def __init__(self, net: Net) -> None:
        self.net = net
        self.layer = BEFORE_THE_NET
        self.seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
        self.num_bytes: dict[tuple[str, ...], int] = {}
        for calls in (net.callbacks.before_forward, net.callbacks.before_backward):
            calls.append(self._enter)

    def note(self, storage: Storage, memory: Memory, make_valid: Callable[[Storage, Memory], None]) -> None:
        """Carry out `make_valid`, and note it if values are moved."""
        sources = [each for each in storage.valid if storage.is_valid(each)]
        if not sources or memory in sources:
            make_valid(storage, memory)
            return
        by_host = HOST in sources and not memory.rounds  # as make_valid chooses
        source = HOST if by_host else min(sources, key=lambda each: each.rounds != memory.rounds)
        began = now()
        make_valid(storage, memory)
        seconds = now() - began
        part, what = self._names().get(id(storage), ("inner", f"of {self.layer}"))
        key = part, what, self.layer, _name(source), _name(memory)
        self.seconds[key].append(seconds)
        self.num_bytes[key] = storage.copies[source].nbytes + storage.copies[memory].nbytes

    def _enter(self, i: int) -> None:
        self.layer = self.net.layer_names[i]

    def _names(self) -> dict[int, tuple[str, str]]:
        """Return part and name of each storage as it is now: shapes and views exchange them."""
        tensors = [
            ("param", f"{p.layer_name}.{p.index}", p.blob.data_tensor) for p in self.net.learnable_params
        ]
        for name, blob in reversed(self.net.blobs.items()):  # of views the first is the one that counts
            tensors += [("diff", name, blob.diff_tensor), ("data", name, blob.data_tensor)]
        return {id(tensor.storage): (part, name) for part, name, tensor in tensors}


def _name(memory: Memory) -> str:
    return layout_name(memory) if isinstance(memory, Layout) else "plain"


@contextmanager
def traced(trace: Trace) -> Any:
    """Let every tensor tell `trace` when its values are moved."""
    make_valid = Storage.make_valid
    Storage.make_valid = lambda storage, memory: trace.note(storage, memory, make_valid)  # type: ignore[method-assign]
    try:
        yield
    finally:
        Storage.make_valid = make_valid  # type: ignore[method-assign]


def measure(solver: Solver) -> dict[str, Any]:
    """Return what the program prints."""
    steps = make_steps(solver)
    steps(NUM_WARM_UP)
    iterations = []
    for _ in range(NUM_ITERATIONS):
        began = now()
        steps(1)
        iterations.append(now() - began)
    trace = Trace(solver.net)
    with traced(trace):
        steps(NUM_ITERATIONS)
    return {
        "iteration_ms": 1000 * statistics.median(iterations),
        "reorders": [
            {
                **dict(zip(("part", "what", "layer", "source", "target"), key, strict=True)),
                "count": len(seconds) / NUM_ITERATIONS,
                "bytes": trace.num_bytes[key] * len(seconds) / NUM_ITERATIONS,
                "ms": 1000 * statistics.median(seconds) * len(seconds) / NUM_ITERATIONS,
            }
            for key, seconds in trace.seconds.items()
        ],
    }


def main() -> None:
    """Measure the net that the command line names."""
    name, batch_size = sys.argv[1], int(sys.argv[2])
    solver = make_solver(net_text(name, batch_size, CONSTANT), create_engine("onednn"))
    print(json.dumps(measure(solver)))
    solver.close()


if __name__ == "__main__":
    main()
