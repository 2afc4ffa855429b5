"""The peer of scaling.py: the same nets in PyTorch with DistributedDataParallel over gloo, data already in memory.

scaling_torch.py FOLDER lenet|cifar10_quick BATCH_SIZE_PER_RANK NUM_ITERATIONS     (under mpirun, or alone)
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed
from lenet_torch import time_steps
from made_up import net_text
from nets_torch import make_steps
from torch.nn.parallel import DistributedDataParallel


def join_ranks(folder: Path) -> tuple[int, int]:
    """Let the processes that mpirun started find each other; return rank and world size."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", 0))
    world_size = int(os.environ.get("OMPI_COMM_WORLD_SIZE", 1))
    if world_size > 1:
        parent = os.getppid()  # mpirun's daemon: one for all ranks of the host
        store = torch.distributed.FileStore(str(folder / f"gloo-{parent}"), world_size)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    return rank, world_size


def main() -> None:
    """Train and print."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    batch_size, num_iterations = map(int, sys.argv[3:5])
    torch.set_num_threads(1)
    rank, world_size = join_ranks(folder)
    several = world_size > 1
    text = net_text(name, batch_size)
    _, steps = make_steps(text, DistributedDataParallel) if several else make_steps(text)
    elapsed_s = time_steps(steps, num_iterations, torch.distributed.barrier if several else lambda: None)
    if rank == 0:
        print(json.dumps({"iteration_ms": 1000 * elapsed_s / num_iterations}))
    if several:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
