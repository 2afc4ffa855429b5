"""What bf16 costs in accuracy: whole trainings of two nets of configs/ in float32 and in bf16, over several seeds.

    python tests/bench/accuracy.py MNIST [--nets lenet,cifar10_quick] [--seeds 1,2,3] [--iterations N]

MNIST is the folder of its four files. LeNet trains on them. CIFAR-10 quick trains on images of CIFAR-10's kind made
of the same digits: in colour, moved about on backgrounds of blurred colours and noise, 32x32 pixels. The scores are
those of the test at the end; runs take turns. Takes as long as the trainings: half an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.data.convert_mnist import convert_mnist
from dtrain.data.datum import encode_datum, parse_datum
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.lmdb_writer import write_splits
from dtrain.proto import caffe_pb2

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PRECISIONS = ("float32", "bf16")
SIZE, NUM_BLOTS = 32, 4
_SCORE = re.compile(r"Test net output #\d+: \S*accuracy\S* = (\S+)")


def main() -> None:
    """Convert, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--iterations", type=int, help="instead of the solver's max_iter")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "configs").symlink_to(CONFIGS)
        convert_mnist(args.mnist, folder / "databases/mnist")
        for net in args.nets.split(","):
            if net == "cifar10_quick":
                colour_digits(folder / "databases/mnist", folder / "databases/cifar10")
            compare(folder, net, [int(seed) for seed in args.seeds.split(",")], args.iterations)


def compare(folder: Path, net: str, seeds: list[int], num_iterations: int | None) -> None:
    """Train with each seed in both precisions and print the scores, their means and how far these lie apart."""
    scores: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in seeds:
        for precision in PRECISIONS:
            scores[precision].append(100 * train(folder, net, seed, precision, num_iterations))
            print(f"{net}, seed {seed}, {precision}: {scores[precision][-1]:.2f} %", flush=True)
    means = [statistics.mean(scores[precision]) for precision in PRECISIONS]
    words = ", ".join(f"{precision} {mean:.2f} %" for precision, mean in zip(PRECISIONS, means, strict=True))
    print(
        f"{net}, mean of {len(seeds)} seeds: {words}; bf16 minus float32: {means[1] - means[0]:+.2f} points"
    )


def train(folder: Path, net: str, seed: int, precision: str, num_iterations: int | None) -> float:
    """Return the accuracy of the last test of a training of configs/`net`."""
    solver = text_format.Parse((CONFIGS / net / "solver.prototxt").read_text(), caffe_pb2.SolverParameter())
    solver.random_seed = seed
    solver.max_iter = num_iterations or solver.max_iter
    solver.test_interval = solver.max_iter
    solver.test_initialization = False
    solver.ClearField("snapshot")
    solver.snapshot_after_train = False
    path = folder / "solver.prototxt"
    path.write_text(text_format.MessageToString(solver))
    command = [sys.executable, "-m", "dtrain", os.fspath(path), "--precision", precision]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    scores = _SCORE.findall(done.stderr)
    if done.returncode or not scores:
        raise SystemExit(f"accuracy: {' '.join(command)} ended with code {done.returncode}:\n{done.stderr}")
    return float(scores[-1])


def colour_digits(mnist: Path, out: Path) -> None:
    """Write OUT/train and OUT/test, as many images of 3x32x32 as the databases MNIST/train and MNIST/test have."""
    splits = ("train", "test")
    write_splits(out, {split: _coloured(mnist / split, seed) for seed, split in enumerate(splits)})


def _coloured(database: Path, seed: int) -> Iterator[tuple[bytes, bytes]]:
    random = np.random.default_rng(seed)
    source = LmdbSource(os.fspath(database))
    for index in range(len(source)):
        datum = parse_datum(source.read(index))
        yield b"%08d" % index, encode_datum(_colour(datum.image()[0], random), datum.label)
    source.close()


def _colour(digit: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Return the digit in a light colour somewhere on a dark background, (3, 32, 32)."""
    blots = random.uniform(0, 110, (3, NUM_BLOTS, NUM_BLOTS))
    background = np.kron(blots, np.ones((SIZE // NUM_BLOTS,) * 2)) + random.normal(0, 20, (3, SIZE, SIZE))
    cover = np.zeros((SIZE, SIZE))
    height, width = digit.shape
    y, x = random.integers(0, SIZE - height + 1), random.integers(0, SIZE - width + 1)
    cover[y : y + height, x : x + width] = digit / 255
    colour = random.uniform(150, 255, (3, 1, 1))
    return np.clip(background * (1 - cover) + colour * cover, 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
