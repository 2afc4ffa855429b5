"""The benchmark of training on 1 and 2 ranks: weak and strong scaling, beside PyTorch's DistributedDataParallel."""

from __future__ import annotations

import statistics
from pathlib import Path

from measuring import HAS_TORCH, ROUNDS, lenet_database, median, run_program

GLOBAL_BATCH_SIZE = 64
NUM_ITERATIONS = {"lenet": 200, "cifar10_quick": 60}


def bench_scaling(folder: Path) -> None:
    """LeNet and CIFAR-10 quick, one thread a rank: 64 images on 1 rank, shared by 2 (strong), 64 on each (weak)."""
    lenet_database(folder)
    for net, num_iterations in NUM_ITERATIONS.items():
        for words, num_ranks, batch_size in (
            ("1 rank", 1, GLOBAL_BATCH_SIZE),
            ("2 ranks, strong", 2, GLOBAL_BATCH_SIZE // 2),
            ("2 ranks, weak", 2, GLOBAL_BATCH_SIZE),
        ):
            args, ours, peers = (folder, net, batch_size, num_iterations), [], []
            for _ in range(ROUNDS):
                ours.append(run_program("scaling.py", *args, num_ranks=num_ranks))
                if HAS_TORCH:
                    peers.append(run_program("scaling_torch.py", *args, num_ranks=num_ranks))
            images_per_s = 1000 * num_ranks * batch_size / median(ours, "iteration_ms")
            line = f"{net}, {words} x {batch_size}: {images_per_s:.0f} images/s, "
            line += f"in collective calls {median(ours, 'wait_ms'):.2f} ms an iteration"
            if peers:
                pairs = zip(ours, peers, strict=True)
                ratio = statistics.median(peer["iteration_ms"] / own["iteration_ms"] for own, peer in pairs)
                peer_per_s = 1000 * num_ranks * batch_size / median(peers, "iteration_ms")
                line += f"; PyTorch DDP over gloo {peer_per_s:.0f}, its time over ours: {ratio:.2f}"
            print(line, flush=True)
