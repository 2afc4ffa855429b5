"""The benchmark of memory: what training the nets of configs/ is predicted to take, what it takes, and PyTorch's.

`make bench ARGS=memory` runs all; memory.py [NAME…] [OPTION…] some, with options of `dtrain train`: --precision bf16.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from measuring import HAS_TORCH, run_program

# Images in a batch, and what one of them is where the net's file does not say it.
NETS = {
    "lenet": (64, "1x28x28"),
    "cifar10_quick": (100, "3x32x32"),
    "cifar10_full": (100, "3x32x32"),
    "digits": (32, "1x8x8"),
    "smile": (96, "3x60x60"),
    "lstm": (8, "40x8,40,40"),
    "mnist_autoencoder": (100, "1x28x28"),
    "mnist_siamese": (64, "2x28x28"),
    "alexnet": (16, ""),
    "caffenet": (16, ""),
    "googlenet": (8, ""),
    "resnet50": (8, ""),
    "mobilenet_v1": (16, ""),
    "mobilenet_v2": (8, ""),
    "squeezenet": (8, ""),
    "densenet121": (4, ""),
    "vgg16": (2, ""),
}
PYTORCH = frozenset(NETS) - {"cifar10_full", "digits", "smile", "lstm", "mnist_autoencoder", "mnist_siamese"}


def bench_memory(_folder: Path, names: Sequence[str] = tuple(NETS), options: Sequence[str] = ()) -> None:
    """Peaks of memory of a rank: predicted, measured, with --keep-blobs, recomputing, PyTorch's; MB, one thread."""
    print(
        f"{'net':<18}{'batch':>6}{'predicted':>11}{'measured':>10}{'error':>8}{'keeping all':>13}"
        f"{'recomputing':>13}{'error':>8}{'PyTorch':>9}"
    )
    for name in names:
        batch_size, shape = NETS[name]
        args = [name, batch_size, *options, "--synthetic", *([shape] if shape else [])]

        def mb(how: str, *more: str, args: Sequence[object] = tuple(args)) -> float:
            return run_program("memory.py", how, *args, *more)["mb"]

        predicted, shared, kept = mb("predict"), mb("measure"), mb("measure", "--keep-blobs")
        predicted_again, again = mb("predict", "--recompute"), mb("measure", "--recompute")
        line = f"{name:<18}{batch_size:>6}{predicted:>11.0f}{shared:>10.0f}{predicted / shared - 1:>+8.1%}"
        line += f"{kept:>13.0f}{again:>13.0f}{predicted_again / again - 1:>+8.1%}"
        if HAS_TORCH and name in PYTORCH:
            line += f"{run_program('memory_torch.py', name, batch_size)['mb']:>9.0f}"
        print(line, flush=True)


def main() -> None:
    """Measure the nets that the command line names, or all."""
    words = sys.argv[1:]
    names = list(itertools.takewhile(lambda word: not word.startswith("--"), words))
    bench_memory(Path(), names or tuple(NETS), words[len(names) :])


if __name__ == "__main__":
    main()
