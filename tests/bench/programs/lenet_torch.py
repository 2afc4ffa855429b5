"""The peer of lenet.py: the same net, batch and update in PyTorch (eager), data already in memory.

lenet_torch.py BATCH_SIZE NUM_ITERATIONS NUM_THREADS
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

WARM_UP_ITERATIONS = 20


def make_net() -> nn.Module:
    """Return LeNet as configs/lenet describes it."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


def train(
    net: nn.Module, shape: Sequence[int], num_iterations: int, finish: Callable[[], object] = lambda: None
) -> float:
    """Train `net` on made-up images of `shape` (N, C, H, W) and return the seconds, those of `finish` included."""
    loss = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9, weight_decay=0.004)
    images, labels = torch.rand(*shape), torch.randint(0, 10, shape[:1])

    def step() -> None:
        optimizer.zero_grad()
        loss(net(images), labels).backward()
        optimizer.step()

    for _ in range(WARM_UP_ITERATIONS):
        step()
    began = time.perf_counter()
    for _ in range(num_iterations):
        step()
    finish()
    return time.perf_counter() - began


def main() -> None:
    """Train and print."""
    batch_size, num_iterations, num_threads = (int(word) for word in sys.argv[1:4])
    torch.set_num_threads(num_threads)
    elapsed_s = train(make_net(), (batch_size, 1, 28, 28), num_iterations)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"iteration_ms": 1000 * elapsed_s / num_iterations, "peak_mb": peak_mb}))


if __name__ == "__main__":
    main()
