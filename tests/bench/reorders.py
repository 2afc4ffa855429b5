"""The benchmark of reorders: which values of a net are brought into another layout in an iteration, and their time.

`make bench ARGS=reorders` runs all nets; reorders.py [NAME…] some, and lists their dearest reorders. On one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measuring import run_program

# Images in a batch.
NETS = {
    "lenet": 64,
    "cifar10_quick": 100,
    "caffenet": 4,
    "alexnet": 4,
    "googlenet": 4,
    "resnet50": 2,
    "vgg16": 1,
    "mobilenet_v1": 4,
    "mobilenet_v2": 4,
    "squeezenet": 4,
    "densenet121": 2,
}
NUM_DEAREST = 10


def bench_reorders(_folder: Path, names: Iterable[str] = tuple(NETS), num_dearest: int = 0) -> None:
    """Reorders of blobs, and apart those of weights, which each update makes necessary: number, MB, share of time."""
    print(
        f"{'net':<16}{'batch':>6}{'ms':>9}{'blobs':>8}{'MB':>8}{'share':>8}{'weights':>10}{'MB':>8}{'share':>8}"
    )
    for name in names:
        found: Any = run_program("reorders.py", name, NETS[name])
        line = f"{name:<16}{NETS[name]:>6}{found['iteration_ms']:>9.1f}"
        for is_weight, width in ((False, 8), (True, 10)):
            rows = [row for row in found["reorders"] if (row["part"] == "param") == is_weight]
            count, mb = sum(row["count"] for row in rows), sum(row["bytes"] for row in rows) / 1e6
            share = sum(row["ms"] for row in rows) / found["iteration_ms"]
            line += f"{count:>{width}.0f}{mb:>8.1f}{share:>8.2%}"
        print(line, flush=True)
        for row in sorted(found["reorders"], key=lambda row: -row["ms"])[:num_dearest]:
            print(
                f"    {row['part']} {row['what']}, in {row['layer']}: {row['source']} to {row['target']}, "
                f"{row['bytes'] / 1e6:.2f} MB, {row['ms']:.3f} ms"
            )


def main() -> None:
    """List the reorders of the nets that the command line names, or of all."""
    unknown = [name for name in sys.argv[1:] if name not in NETS]
    if unknown:
        raise SystemExit(f"unknown net {', '.join(unknown)}; known: {', '.join(NETS)}")
    bench_reorders(Path(), sys.argv[1:] or NETS, NUM_DEAREST)


if __name__ == "__main__":
    main()
