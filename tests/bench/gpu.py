"""The benchmark of GPUs: an iteration of the nets of configs/ in dtrain and in PyTorch, eager and compiled.

gpu.py [--precision bf16,tf32] [NAME…]     in less than 9 minutes for all

For each net there is a process of dtrain's and one for each way of PyTorch's (channels last, fused update; autocast
for bf16). They take turns in rounds; medians of images/s are printed, and the ratio round by round, with the peak of
memory and the share that dtrain reaches of the products of matrices that the GPU does at its best. Then how long a
reduction of gradients over one rank takes, and what an iteration waits for records of a real LMDB.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import run_program
from nets import Turns, take_turns

# Images in a batch.
NETS = {
    "lenet": 64,
    "cifar10_quick": 100,
    "caffenet": 512,
    "googlenet": 256,
    "resnet50": 256,
    "vgg16": 128,
}
PEERS = {"torch.compile": ("compiled",), "eager": ()}
TURN_S, ROUNDS_S = 0.3, 8.0  # what a turn, and what all rounds of a net should take
NUM_TO_WARM_UP = 3  # iterations: compiled, algorithms chosen
REDUCED_MB = (100, 240)


def measure(folder: Path, name: str, precision: str, rates: dict[str, Any]) -> str:
    """Return the lines of a net."""
    path, batch_size = folder / f"{name}.prototxt", NETS[name]
    environment = dict(os.environ)
    with ExitStack() as stack:
        ours = stack.enter_context(Turns(environment, "gpu_nets.py", name, batch_size, path, precision))
        peers = {
            title: stack.enter_context(
                Turns(environment, "nets_torch.py", path, "cuda", "tuned", precision, *words)
            )
            for title, words in PEERS.items()
        }
        ways = [ours, *peers.values()]
        rounds = take_turns(ways, TURN_S, ROUNDS_S, NUM_TO_WARM_UP)
        peaks = [way.ask("peak_mb") for way in ways]
        params, flops = {way.ask("num_params") for way in ways}, ours.ask("flops")
        if len(params) > 1:
            raise SystemExit(f"{name}: the nets must have as many params, got {params}")
    seconds = [statistics.median(column) for column in zip(*rounds, strict=True)]
    share = flops / seconds[0] / rates[f"{precision}_flops"]
    line = (
        f"{name}, {batch_size} images, {precision}: {batch_size / seconds[0]:,.0f} images/s "
        f"({1000 * seconds[0]:.2f} ms), {share:.0%} of the products' best, peak {peaks[0]:,.0f} MB"
    )
    for i, title in enumerate(peers, start=1):
        ratio = statistics.median(row[i] / row[0] for row in rounds)
        line += (
            f"\n    PyTorch, {title}: {batch_size / seconds[i]:,.0f} images/s, ours over its: {ratio:.2f}; "
            f"peak {peaks[i]:,.0f} MB, ours over its: {peaks[0] / peaks[i]:.2f}"
        )
    return line


def main() -> None:
    """Measure the nets that the command line names, or all."""
    parser = argparse.ArgumentParser(description="An iteration of the nets of configs/ on a GPU.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETS))
    parser.add_argument("--precision", default="bf16,tf32", help="bf16, tf32 or both (default)")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NETS]
    if unknown:
        parser.error(f"unknown net {', '.join(unknown)}; known: {', '.join(NETS)}")
    rates = run_program("gpu_rates.py")
    print(
        f"{rates['device']}, PyTorch {rates['torch']}: products {rates['bf16_flops'] / 1e12:.0f} TFLOP/s in bf16, "
        f"{rates['tf32_flops'] / 1e12:.0f} in TF32; copies {rates['copy_bytes'] / 1e12:.2f} TB/s",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for precision in args.precision.split(","):
            for name in args.names or NETS:
                print(measure(Path(folder), name, precision, rates), flush=True)
    for num_mb in REDUCED_MB:
        row = run_program("gpu_reduction.py", num_mb)
        print(
            f"reduction of {num_mb} MB over one rank: {row['ms']:.2f} ms, {row['tb_per_s']:.2f} TB/s",
            flush=True,
        )
    row = run_program("gpu_data.py")
    print(
        f"CaffeNet, {row['batch_size']:.0f} images of 256x256 from an LMDB, cropped and mirrored: "
        f"{row['images_per_s']:,.0f} images/s, waiting for data {row['waiting']:.1%} of an iteration"
    )


if __name__ == "__main__":
    main()
