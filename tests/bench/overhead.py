"""The benchmark of what is not arithmetic: an iteration of nets whose primitives do nothing, by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measuring import run_program

NETS = ("lenet", "cifar10_quick", "googlenet", "resnet50", "mobilenet_v1")
GOAL_US = 25  # a layer
NUM_ITERATIONS, NUM_PROCESSES = 100, 3
NUM_DEAREST = 6


def bench_overhead(_folder: Path) -> None:
    """Us a layer, forward and backward with its share of all else, on one thread; the best of some processes."""
    for name in NETS:
        rows: list[dict[str, Any]] = [
            run_program("overhead.py", name, NUM_ITERATIONS) for _ in range(NUM_PROCESSES)
        ]
        row = min(rows, key=lambda row: row["iteration_us"])
        num_layers = row["num_layers"]
        parts = ", ".join(
            f"{part} {row[f'{part}_us']:,.0f}" for part in ("forward", "backward", "update", "rest")
        )
        print(
            f"{name}, {num_layers} layers: {row['iteration_us'] / num_layers:.0f} us a layer (goal {GOAL_US}); "
            f"an iteration {row['iteration_us']:,.0f} us: {parts}"
        )
        dearest = sorted(row["by_type"].items(), key=lambda item: -item[1][0] * item[1][1])
        print(
            "    both passes, us: "
            + ", ".join(f"{number} {kind} {us:.0f} each" for kind, (number, us) in dearest[:NUM_DEAREST]),
            flush=True,
        )
