"""The peer of lenet.py: the same net, batch and update in PyTorch (eager), data already in memory.

lenet_torch.py BATCH_SIZE NUM_ITERATIONS NUM_THREADS
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import torch
from made_up import net_text
from nets_torch import make_steps

WARM_UP_ITERATIONS = 20


def time_steps(
    steps: Callable[[int], None], num_iterations: int, finish: Callable[[], object] = lambda: None
) -> float:
    """Train, after some iterations to warm up, and return the seconds, those of `finish` included."""
    steps(WARM_UP_ITERATIONS)
    began = time.perf_counter()
    steps(num_iterations)
    finish()
    return time.perf_counter() - began


def main() -> None:
    """Train and print."""
    batch_size, num_iterations, num_threads = (int(word) for word in sys.argv[1:4])
    torch.set_num_threads(num_threads)
    _, steps = make_steps(net_text("lenet", batch_size))
    elapsed_s = time_steps(steps, num_iterations)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"iteration_ms": 1000 * elapsed_s / num_iterations, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
