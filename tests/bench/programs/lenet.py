"""Train LeNet for a number of iterations and print what it took, as one line of JSON (rank 0).

lenet.py LMDB BATCH_SIZE_PER_RANK NUM_ITERATIONS
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from dtrain.core.engines import create_engine
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.create import create_communicator

WARM_UP_ITERATIONS = 20
SOLVER = Path(__file__).resolve().parents[3] / "configs/lenet/solver.prototxt"
NET = SOLVER.with_name("train_val.prototxt")


def write_solver(database: str, batch_size: int, folder: Path) -> Path:
    """Write configs/lenet with another database and batch size, and without tests and snapshots."""
    net = (
        NET.read_text()
        .replace("databases/mnist/train", database)
        .replace("batch_size: 64", f"batch_size: {batch_size}")
    )
    (folder / "net.prototxt").write_text(net)
    lines = [
        line
        for line in SOLVER.read_text().splitlines()
        if not line.startswith(("net:", "test_", "snapshot:"))
    ]
    solver = folder / "solver.prototxt"
    solver.write_text("\n".join([*lines, f'net: "{folder / "net.prototxt"}"']))
    return solver


def main() -> None:
    """Train and print."""
    database, batch_size, num_iterations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    communicator = create_communicator(None, os.environ)
    folder = Path(database).parent
    if communicator.rank == 0:
        write_solver(database, batch_size, folder)
    communicator.barrier()
    recipe = read_recipe(os.fspath(folder / "solver.prototxt"))
    for test in ("test_iter", "test_interval"):
        recipe.solver.ClearField(test)
    recipe.solver.display = 0
    solver = Solver(recipe, engine=create_engine(), communicator=communicator)
    solver.step(WARM_UP_ITERATIONS)
    loader = solver.net.reading_layers[0].loader
    waited_before_s = loader.waited_s
    began = time.perf_counter()
    solver.step(num_iterations)
    elapsed_s = time.perf_counter() - began
    waited_s = loader.waited_s - waited_before_s
    solver.close()
    if communicator.rank == 0:
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        result = {"iteration_ms": 1000 * elapsed_s / num_iterations, "wait_share": waited_s / elapsed_s}
        print(json.dumps(result | {"peak_mb": peak_mb}))
    communicator.close()


if __name__ == "__main__":
    main()
