"""Train a net of configs/ on a GPU, on made-up images in its memory, in turns: a process of the benchmark of GPUs.

gpu_nets.py NAME BATCH_SIZE NET [bf16]     NET: its prototxt, as gpu_texts.py writes it

Seconds are CUDA's events'. Beside what turns.py answers: "num_params", "engine" and "flops", the
multiplications and additions of all matrix products of an iteration. "peak_mb" is what cupy's pools have taken.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpu_played import play_if_asked
from made_up import make_solver
from nets import describe_work
from turns import BASE_LR, MOMENTUM, WEIGHT_DECAY, made_up_batch, take_turns

from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine
from dtrain.core.solver.solver import Solver

RATES = f"base_lr: {BASE_LR} momentum: {MOMENTUM} weight_decay: {WEIGHT_DECAY}"


def make_gpu_solver(text: str, precision: str, captures: bool = True) -> Solver:
    """Return a solver that trains the net of this prototxt on a GPU, as `dtrain train` would.

    captures: whether as a graph.
    """
    engine = create_engine("cudnn", precision)
    solver = make_solver(text, engine, RATES + f" dtrain_param {{ precision: {precision} }}")
    if captures:
        solver.capture()
    return solver


def make_steps(solver: Solver) -> Callable[[int], None]:
    """Put a batch in the GPU's memory; return what trains on it a number of iterations."""
    blobs, memory, xp = solver.net.blobs, solver.engine.memory, solver.engine.xp
    batch = made_up_batch(solver.net.recipe.document.message)
    for top, values in batch.items():
        blobs[top].write_data(memory)[...] = xp.asarray(values)

    def steps(num_iterations: int) -> None:
        for _ in range(num_iterations):
            for top in batch:
                blobs[top].update_data(memory)  # as if new: copies of 16 bits are void
            solver.step(1)

    return steps


def seconds_on_gpu(engine: Engine, run: Callable[[], object]) -> float:
    """Return how long the GPU took for what `run` gave it."""
    cuda = engine.xp.cuda
    began, ended = cuda.Event(), cuda.Event()
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return float(cuda.get_elapsed_time(began, ended)) / 1000


@contextmanager
def counting_bytes(cupy: Any) -> Iterator[list[int]]:
    """Give a list of one number that grows by what cupy's pools take of the GPU's memory in this thread."""
    taken = [0]

    class Counting(cupy.cuda.MemoryHook):  # type: ignore[misc]
        """Hears of what pools take."""

        name = "counting"

        def alloc_postprocess(self, **told: int) -> None:
            """Count."""
            taken[0] += told["mem_size"]

    with Counting():
        yield taken


def main() -> None:
    """Train in turns."""
    play_if_asked()
    text = Path(sys.argv[3]).read_text()
    precision, value_bytes = ("BF16", 2) if "bf16" in sys.argv[4:] else ("FLOAT32", 4)
    with counting_bytes(create_engine("cudnn", precision).xp) as taken:
        solver = make_gpu_solver(text, precision)
        net, engine = solver.net, solver.engine
        take_turns(
            make_steps(solver),
            {
                "num_params": lambda: sum(p.blob.count for p in net.learnable_params if not p.is_statistic),
                "engine": engine.describe,
                "flops": lambda: sum(sum(layer["flops"]) for layer in describe_work(net, value_bytes)),
                "peak_mb": lambda: taken[0] / 2**20,
            },
            lambda run: seconds_on_gpu(engine, run),
        )
        solver.close()


if __name__ == "__main__":
    main()
