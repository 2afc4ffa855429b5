"""The peer of memory.py: the peak of a process that trains the same net three iterations in PyTorch (eager).

OMP_NUM_THREADS=1 memory_torch.py NAME BATCH_SIZE
"""

from __future__ import annotations

import json
import sys

import torch
from made_up import net_text
from nets_torch import make_steps

from dtrain.launcher.simulation.memory_process import peak_bytes

NUM_ITERATIONS = 3


def main() -> None:
    """Train the net that the command line names and print the peak."""
    torch.set_num_threads(1)
    name, batch_size = sys.argv[1:]
    _, steps = make_steps(net_text(name, int(batch_size)))
    steps(NUM_ITERATIONS)
    print(json.dumps({"mb": peak_bytes() / 1e6}))


if __name__ == "__main__":
    main()
