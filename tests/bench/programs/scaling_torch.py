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
from lenet_torch import make_net, train
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def make_cifar10_quick() -> nn.Module:
    """Return the net of nets/cifar10_quick.prototxt; Caffe's pooling rounds sizes up."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.Linear(64, 10),
    )


NETS = {"lenet": (make_net, (1, 28, 28)), "cifar10_quick": (make_cifar10_quick, (3, 32, 32))}


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
    make, shape = NETS[name]
    several = world_size > 1
    net = DistributedDataParallel(make()) if several else make()
    finish = torch.distributed.barrier if several else (lambda: None)
    elapsed_s = train(net, (batch_size, *shape), num_iterations, finish)
    if rank == 0:
        print(json.dumps({"iteration_ms": 1000 * elapsed_s / num_iterations}))
    if several:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
