"""The benchmark of the CPU's engines: an iteration of a net on each and in PyTorch, on one thread."""

from __future__ import annotations

from pathlib import Path

from measuring import HAS_TORCH, run_program

BATCH_SIZE, NUM_ROUNDS = 64, 7


def bench_engines(folder: Path) -> None:
    """LeNet and CIFAR-10 quick, forward, backward and update of 64 images, processor time, ways taking turns."""
    if not HAS_TORCH:
        print("engines: left out; PyTorch is not installed")
        return
    for net in ("lenet", "cifar10_quick"):
        times = run_program("engine_nets.py", net, BATCH_SIZE, NUM_ROUNDS)
        ours = ", ".join(f"{name} {ms:.1f} ms" for name, ms in times.items() if name != "torch")
        best = min(ms for name, ms in times.items() if name != "torch")
        print(
            f"{net}, {BATCH_SIZE} images, 1 thread: {ours}; PyTorch {times['torch']:.1f} ms, its time over ours: "
            f"{times['torch'] / best:.2f}",
            flush=True,
        )
