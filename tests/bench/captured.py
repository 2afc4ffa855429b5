"""The benchmark of the host beside a GPU: what it does for an iteration that is replayed as a CUDA graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measuring import run_program

GOALS_US = {"lenet": 60, "cifar10_quick": 60, "resnet50": 400}
NUM_ITERATIONS, NUM_PROCESSES = 500, 3


def bench_captured(_folder: Path) -> None:
    """Us of an iteration on a played GPU whose calls take no time; the best of some processes."""
    for name, goal in GOALS_US.items():
        rows: list[dict[str, Any]] = [
            run_program("captured.py", name, NUM_ITERATIONS) for _ in range(NUM_PROCESSES)
        ]
        row = min(rows, key=lambda row: row["iteration_us"])
        print(
            f"{name}, replayed: {row['iteration_us']:.0f} us of the host an iteration (goal {goal}), of which "
            f"{row['idle_us']:.0f} while the GPU is without work; "
            f"the fastest {row['least_us']:.0f} and {row['least_idle_us']:.0f}"
        )
        calls = ", ".join(f"{what} {number:.1f}" for what, number in sorted(row["calls"].items()))
        print(f"    beside calls that cost nothing here: {calls}", flush=True)
