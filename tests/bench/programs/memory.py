"""The memory of training a net of configs/ on made-up images in memory: predicted before it runs, or measured.

OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 memory.py NAME BATCH_SIZE predict|keep|share NET

NET: where its prototxt is written to.
predict: what count_memory says of the net as it is built. keep, share: the peak of a process that trains three
iterations, all blobs kept or sharing memory. Prints JSON: "mb", and of a prediction its parts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from made_up import make_solver, net_text

from dtrain.core.engines import create_engine
from dtrain.launcher.commands import train  # noqa: F401 (what `dtrain train` has loaded)
from dtrain.launcher.simulation.memory import count_memory
from dtrain.launcher.simulation.memory_process import peak_bytes

NUM_ITERATIONS = 3
MB = 1e6


def main() -> None:
    """Predict or measure as the command line asks for."""
    name, batch_size, how, path = sys.argv[1:]
    text = net_text(name, int(batch_size))
    Path(path).write_text(text)
    solver = make_solver(text, create_engine("onednn"), shares=how == "share")
    parts: dict[str, float] = {}
    if how == "predict":
        counted = count_memory(solver.net, solver.arena, solver.param)
        parts = {part: num_bytes / MB for part, num_bytes in counted.items()}
    else:
        solver.step(NUM_ITERATIONS)
    mb = sum(parts.values()) if parts else peak_bytes() / MB
    solver.close()
    print(json.dumps({"mb": mb, **parts}))


if __name__ == "__main__":
    main()
