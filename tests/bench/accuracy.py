"""What a precision or an engine costs in accuracy: whole trainings of two nets of configs/ over several seeds.

    python tests/bench/accuracy.py [MNIST] [--nets lenet,cifar10_quick] [--seeds 1,2,3] [--iterations NET=N,…]
        [--runs [ENGINE:]PRECISION,…] [--gpu] [--jobs N] [--scores FILE] [--bound 0.2]

MNIST is the folder of its four files; without it digits are drawn (drawn_digits.py). LeNet trains on them. CIFAR-10
quick trains on images of CIFAR-10's kind made of the same digits: in colour, moved about on backgrounds of blurred
colours and noise, 32x32 pixels. The scores are those of the test at the end; runs take turns, or go --jobs at a time.

--runs: float32,bf16 by the default engine, or others; the first one is what the others are compared with. --gpu:
those of cudnn with onednn's float32, so that

    python tests/bench/accuracy.py --gpu --jobs 4 --iterations lenet=4000,cifar10_quick=1000 \\
        --scores tests/bench/accuracy.json

says on a machine with a GPU whether the nets are as good there as on a CPU. --scores: a JSON file of scores that need
not be found again; new ones are added. The exit code is 1 if a mean lies further than --bound points below the
first run's. A training takes minutes on a CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from numpy.typing import NDArray

from dtrain.data.convert_mnist import convert_mnist
from dtrain.data.datum import encode_datum, parse_datum
from dtrain.data.lmdb_source import LmdbSource
from dtrain.data.lmdb_writer import write_splits
from dtrain.proto import caffe_pb2

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, os.fspath(ROOT))

from tests.bench.drawn_digits import write_digits  # noqa: E402

CONFIGS = ROOT / "configs"
RUNS = "float32,bf16"
GPU_RUNS = "onednn:float32,cudnn:float32,cudnn:bf16,cudnn:float16"
GPU_ENGINES = ("cudnn", "cupy")
SIZE, NUM_BLOTS = 32, 4
_SCORE = re.compile(r"Test net output #\d+: \S*accuracy\S* = (\S+)")


def main() -> int:
    """Make the data, train, print; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path, nargs="?")
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--iterations", default="", help="of nets, as NET=N,…, instead of their max_iter")
    parser.add_argument("--runs", help=f"engines and precisions, {RUNS} by default")
    parser.add_argument("--gpu", action="store_true", help=f"--runs {GPU_RUNS}")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--scores", type=Path, help="JSON file of scores to be taken, and added to")
    parser.add_argument("--bound", type=float, default=0.2, help="points that a mean may be lower")
    args = parser.parse_args()
    iterations = {
        net: int(n) for net, _, n in (item.partition("=") for item in args.iterations.split(",") if item)
    }
    runs = (args.runs or (GPU_RUNS if args.gpu else RUNS)).split(",")
    seeds = [int(seed) for seed in args.seeds.split(",")]
    with tempfile.TemporaryDirectory() as name:
        scores = Scores(Data(Path(name), args.mnist), args.scores, iterations)
        keys = [(net, run, seed) for net in args.nets.split(",") for seed in seeds for run in runs]
        for net in args.nets.split(","):
            scores.data.prepare(net)
        with ThreadPoolExecutor(args.jobs) as pool:
            found = dict(zip(keys, pool.map(lambda key: scores.find(*key), keys), strict=True))
    worst = 0.0
    for net in args.nets.split(","):
        means = [statistics.mean(found[net, run, seed] for seed in seeds) for run in runs]
        print(f"{net}, mean of {len(seeds)} seeds: {describe(runs, means)}", flush=True)
        worst = min(worst, *(mean - means[0] for mean in means))
    is_good = worst >= -args.bound
    print(
        f"at most {abs(worst):.2f} points below {runs[0]}, {'within' if is_good else 'MORE THAN'} {args.bound:g}"
    )
    return 0 if is_good else 1


def describe(runs: list[str], means: list[float]) -> str:
    """Return in words what the means of `runs` are, and how far from the first one's."""
    others = [
        f"{run} {mean:.2f} % ({mean - means[0]:+.2f} points)"
        for run, mean in zip(runs[1:], means[1:], strict=True)
    ]
    return ", ".join([f"{runs[0]} {means[0]:.2f} %", *others])


class Data:
    """Databases in `folder`, laid out as the nets of configs/ want them; of MNIST's files, or drawn."""

    def __init__(self, folder: Path, mnist: Path | None) -> None:
        self.folder = folder
        self.name = "mnist" if mnist else "drawn"
        (folder / "configs").symlink_to(CONFIGS)
        if mnist:
            convert_mnist(mnist, folder / "databases/mnist")
        else:
            write_digits(folder / "databases/mnist")

    def prepare(self, net: str) -> None:
        """Make what `net` reads, if that is not there."""
        if net == "cifar10_quick":
            colour_digits(self.folder / "databases/mnist", self.folder / "databases/cifar10")


class Scores:
    """Accuracies in percent, of a file or of trainings."""

    def __init__(self, data: Data, path: Path | None, iterations: dict[str, int]) -> None:
        self.data = data
        self._path = path
        self._iterations = iterations
        self._known: dict[str, float] = json.loads(path.read_text()) if path and path.exists() else {}

    def find(self, net: str, run: str, seed: int) -> float:
        """Return the accuracy of the last test of a training of configs/`net`."""
        num_iterations = self._iterations.get(net)
        key = f"{net} {self.data.name} {num_iterations or 'all'} {run} {seed}"
        is_new = key not in self._known
        if is_new:
            self._known[key] = round(100 * train(self.data.folder, net, run, seed, num_iterations), 4)
            if self._path:
                self._path.write_text(json.dumps(self._known, indent=1, sort_keys=True) + "\n")
        print(
            f"{net}, seed {seed}, {run}: {self._known[key]:.2f} %{'' if is_new else ' (known)'}", flush=True
        )
        return self._known[key]


def train(folder: Path, net: str, run: str, seed: int, num_iterations: int | None) -> float:
    """Train and return the last test's accuracy, 0 to 1."""
    solver = text_format.Parse((CONFIGS / net / "solver.prototxt").read_text(), caffe_pb2.SolverParameter())
    solver.random_seed = seed
    solver.max_iter = num_iterations or solver.max_iter
    solver.test_interval = solver.max_iter
    solver.test_initialization = False
    solver.ClearField("snapshot")
    solver.snapshot_after_train = False
    path = folder / f"{net}_{seed}_{run.replace(':', '_')}.prototxt"
    path.write_text(text_format.MessageToString(solver))
    *engine, precision = run.split(":")
    command = [sys.executable, "-m", "dtrain", os.fspath(path), "--precision", precision]
    if engine:
        command += ["--engine", *engine] + (["--gpu", "0"] if engine[0] in GPU_ENGINES else [])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [os.fspath(ROOT), os.environ.get("PYTHONPATH")])),
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    scores = _SCORE.findall(done.stderr)
    if done.returncode or not scores:
        raise SystemExit(
            f"accuracy: {' '.join(command)} ended with code {done.returncode}:\n{done.stderr[-4000:]}"
        )
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
    sys.exit(main())
