"""The benchmark of memory: what training the nets of configs/ is predicted to take, what it takes, and PyTorch's.

`make bench ARGS=memory` runs all; memory.py [NAME…] some.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from measuring import HAS_TORCH, run_program

# Images in a batch.
NETS = {
    "lenet": 64,
    "cifar10_quick": 100,
    "caffenet": 16,
    "googlenet": 8,
    "resnet50": 8,
    "mobilenet_v1": 16,
    "squeezenet": 8,
    "vgg16": 2,
    "alexnet": 16,
    "densenet121": 4,
}


def bench_memory(folder: Path, names: tuple[str, ...] = tuple(NETS)) -> None:
    """Peaks of memory of a rank: predicted, measured, measured with --keep-blobs, PyTorch's; MB, one thread."""
    print(
        f"{'net':<16}{'batch':>6}{'predicted':>11}{'measured':>10}{'error':>8}{'keeping all':>13}{'PyTorch':>9}"
    )
    for name in names:
        path = folder / f"{name}.prototxt"
        args = name, NETS[name]
        predicted, shared, kept = (
            run_program("memory.py", *args, how, path)["mb"] for how in ("predict", "share", "keep")
        )
        line = f"{name:<16}{NETS[name]:>6}{predicted:>11.0f}{shared:>10.0f}"
        line += f"{predicted / shared - 1:>+8.1%}{kept:>13.0f}"
        if HAS_TORCH:
            line += f"{run_program('memory_torch.py', path)['mb']:>9.0f}"
        print(line, flush=True)


def main() -> None:
    """Measure the nets that the command line names, or all."""
    with tempfile.TemporaryDirectory() as folder:
        bench_memory(Path(folder), tuple(sys.argv[1:]) or tuple(NETS))


if __name__ == "__main__":
    main()
