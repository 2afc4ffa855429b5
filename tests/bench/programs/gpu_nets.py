"""Train a net of configs/ on a GPU, on made-up images in its memory, in turns: a process of the benchmark of GPUs.

gpu_nets.py NAME BATCH_SIZE NET [bf16]     NET: where its prototxt is written to

Seconds are CUDA's events'. Beside what turns.py answers: "num_params", "engine" and "flops", the multiplications and
additions of all matrix products of an iteration.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from made_up import make_solver, net_text
from nets import CONSTANT, describe_work, make_steps
from turns import BASE_LR, MOMENTUM, WEIGHT_DECAY, take_turns

from dtrain.core.engines import create_engine
from dtrain.core.engines.engine import Engine


def seconds_on_gpu(engine: Engine, run: Callable[[], object]) -> float:
    """Return how long the GPU took for what `run` gave it."""
    cuda = engine.xp.cuda
    began, ended = cuda.Event(), cuda.Event()
    began.record()
    run()
    ended.record()
    ended.synchronize()
    return float(cuda.get_elapsed_time(began, ended)) / 1000


def main() -> None:
    """Train in turns."""
    name, batch_size, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    precision, value_bytes = ("BF16", 2) if "bf16" in sys.argv[4:] else ("FLOAT32", 4)
    text = net_text(name, batch_size, CONSTANT)
    path.write_text(text)
    rates = f"base_lr: {BASE_LR} momentum: {MOMENTUM} weight_decay: {WEIGHT_DECAY}"
    engine = create_engine("cudnn", precision)
    solver = make_solver(text, engine, rates + f" dtrain_param {{ precision: {precision} }}")
    net, memory = solver.net, engine.xp.get_default_memory_pool()
    take_turns(
        make_steps(solver),
        {
            "num_params": lambda: sum(p.blob.count for p in net.learnable_params if not p.is_statistic),
            "engine": engine.describe,
            "flops": lambda: sum(sum(layer["flops"]) for layer in describe_work(net, value_bytes)),
            "peak_mb": lambda: memory.total_bytes() / 2**20,
        },
        lambda run: seconds_on_gpu(engine, run),
    )
    solver.close()


if __name__ == "__main__":
    main()
