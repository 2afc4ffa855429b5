"""Predict an iteration on the ranks of this job, then train, and print both as one line of JSON (rank 0).

simulate.py FOLDER lenet|cifar10_quick BATCH_SIZE NUM_ITERATIONS NUM_ROUNDS

The two take turns, since machines are noisy; medians and the best rounds are printed. Files are written to FOLDER,
where the database for lenet is expected under train.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path

from lenet import write_solver
from made_up import net_text, solver_text

from dtrain.core.engines import create_engine
from dtrain.core.solver.recipe import read_recipe
from dtrain.core.solver.solver import Solver
from dtrain.dist.communicator import Communicator
from dtrain.dist.create import create_communicator
from dtrain.launcher.simulation.answer import find_work, set_up
from dtrain.launcher.simulation.cluster import Cluster
from dtrain.launcher.simulation.options import RING, Question
from dtrain.launcher.simulation.prediction import predict_iteration


def write_files(folder: Path, name: str, batch_size: int, communicator: Communicator) -> Path:
    """Write the solver of net `name` on rank 0 and return its path. Collective."""
    if communicator.rank == 0 and name == "lenet":
        write_solver(os.fspath(folder / "train"), batch_size, folder)
    elif communicator.rank == 0:
        net = folder / "net.prototxt"
        net.write_text(net_text(name, batch_size))
        (folder / "solver.prototxt").write_text(solver_text(net))
    communicator.barrier()
    return folder / "solver.prototxt"


def make_solver(path: Path, communicator: Communicator) -> Solver:
    """Return a solver that trains and does nothing else."""
    recipe = read_recipe(os.fspath(path))
    for field in ("test_iter", "test_interval", "display"):
        recipe.solver.ClearField(field)
    return Solver(recipe, engine=create_engine(), communicator=communicator, activity=communicator.activity)


def main() -> None:
    """Predict, train and print."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    batch_size, num_iterations, num_rounds = map(int, sys.argv[3:])
    communicator = create_communicator(None, os.environ)
    path = write_files(folder, name, batch_size, communicator)
    args = Namespace(file=os.fspath(path), stage="", level=None, synthetic=None)
    subject = set_up(args, create_engine(), False, communicator)
    clusters = [Cluster(1, num_ranks) for num_ranks in (1, 2, 4)]
    solver = make_solver(path, communicator)
    solver.step(3)
    question = Question(clusters[-1], None, None, RING, measured_s=0.5)
    rounds = []
    for _ in range(num_rounds):
        work, machine = find_work(question, subject, None, communicator)
        predicted = {
            f"predicted_{c.world_size}_ms": 1e3 * predict_iteration(work, machine, c).total_s
            for c in clusters
        }
        communicator.barrier()
        began = time.perf_counter()
        solver.step(num_iterations)
        communicator.barrier()
        measured_ms = 1e3 * (time.perf_counter() - began) / num_iterations
        rounds.append({**predicted, "measured_ms": measured_ms, "slowdown": machine.slowdown})
    solver.close()
    subject.net.close()
    if communicator.rank == 0:
        medians = {key: statistics.median(row[key] for row in rounds) for key in rounds[0]}
        best = {f"best_{key}": min(row[key] for row in rounds) for key in rounds[0]}
        print(json.dumps({**medians, **best}))
    communicator.close()


if __name__ == "__main__":
    main()
