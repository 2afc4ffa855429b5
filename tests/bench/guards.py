"""The benchmark of what watches over a job: the supervisors of ranks, and the comparison of params."""

from __future__ import annotations

from pathlib import Path

from measuring import ROUNDS, lenet_database, median, run_program

BATCH_SIZE = 64
NUM_ITERATIONS = {"lenet": 400, "cifar10_quick": 120}


def bench_guards(folder: Path) -> None:
    """LeNet and CIFAR-10 quick, 2 ranks of 64 images: the share of an iteration that the guards take."""
    lenet_database(folder)
    for net, num_iterations in NUM_ITERATIONS.items():
        rows = [
            run_program("guards.py", folder, net, BATCH_SIZE, num_iterations, num_ranks=2)
            for _ in range(ROUNDS)
        ]
        print(
            f"{net}, 2 ranks x {BATCH_SIZE}: {median(rows, 'iteration_ms'):.2f} ms an iteration; of it the guards "
            f"take {median(rows, 'all'):.3%} (supervisor {median(rows, 'watch'):.3%}, activity "
            f"{median(rows, 'settings'):.3%}, params compared {median(rows, 'comparison'):.3%})",
            flush=True,
        )
