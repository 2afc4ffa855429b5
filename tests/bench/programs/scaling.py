"""Train a net on the ranks of this job and print what an iteration took, as one line of JSON (rank 0).

scaling.py FOLDER lenet|cifar10_quick BATCH_SIZE_PER_RANK NUM_ITERATIONS [FIELDS]

FIELDS go into the solver's dtrain_param. FOLDER is where files may be written; for lenet it has the database train.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from simulate import make_solver, write_files

from dtrain.dist.create import create_communicator

WARM_UP_ITERATIONS = 20


def main() -> None:
    """Train and print."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    batch_size, num_iterations = map(int, sys.argv[3:5])
    fields = " ".join(sys.argv[5:])
    communicator = create_communicator(None, os.environ)
    path = write_files(folder, name, batch_size, communicator)
    if communicator.rank == 0:
        path.write_text(f"{path.read_text()}\ndtrain_param {{ {fields} }}\n")
    communicator.barrier()
    solver = make_solver(path, communicator)
    solver.step(WARM_UP_ITERATIONS)
    communicator.barrier()
    waited_s = communicator.waited_s
    began = time.perf_counter()
    solver.step(num_iterations)
    communicator.barrier()
    elapsed_s = time.perf_counter() - began
    waited_s = communicator.waited_s - waited_s
    solver.close()
    if communicator.rank == 0:
        print(
            json.dumps(
                {
                    "iteration_ms": 1000 * elapsed_s / num_iterations,
                    "wait_ms": 1000 * waited_s / num_iterations,
                }
            )
        )
    communicator.close()


if __name__ == "__main__":
    main()
