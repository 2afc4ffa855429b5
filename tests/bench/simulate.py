"""The benchmark of `dtrain check --simulate`: iterations predicted from measurements here, beside real ones."""

from __future__ import annotations

from pathlib import Path

from measuring import ROUNDS, lenet_database, run_program

NETS = ("lenet", "cifar10_quick")
NUM_RANKS = (2, 4)
BATCH_SIZE, NUM_ITERATIONS = 32, 15


def bench_simulate(folder: Path) -> None:
    """LeNet, CIFAR-10 quick, 32 images a rank, 1 thread each: predicted and measured in turn; goal within 15 %."""
    lenet_database(folder)
    for net in NETS:
        for num_ranks in NUM_RANKS:
            args = (folder, net, BATCH_SIZE, NUM_ITERATIONS, ROUNDS)
            result = run_program("simulate.py", *args, num_ranks=num_ranks)
            predicted, measured = result[f"predicted_{num_ranks}_ms"], result["measured_ms"]
            best = result[f"best_predicted_{num_ranks}_ms"] / result["best_measured_ms"]
            print(
                f"{net}, {num_ranks} ranks: predicted {predicted:.1f} ms an iteration, measured {measured:.1f}, "
                f"ratio {predicted / measured:.2f}, of the best rounds {best:.2f}; slowdown {result['slowdown']:.2f}",
                flush=True,
            )
