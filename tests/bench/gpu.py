"""The benchmark of GPUs: an iteration of the nets of configs/ in dtrain and in PyTorch, eager and compiled.

gpu.py [--precision bf16,tf32] [--profile] [NAME…]     in less than 9 minutes for all

For each net there is a process of dtrain's and, where PyTorch is installed, one for each way of that (channels last,
fused update; autocast for bf16). They take turns in rounds; the table has medians of images/s, the ratio round by
round, the memory that either takes of the GPU, and the share that dtrain reaches of the products of matrices that the
GPU does at its best. Then how long a reduction of gradients over one rank takes, and what an iteration waits for
records of a real LMDB. What fails or takes too long costs its own row alone. Rows are printed as they come, and
written to gpu_bench.md in the folder that the variable OUT names, if there is one. --profile: where the time of an
iteration goes instead.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpu_processes import Deadline, Failed, Process, run
from nets import take_turns

# Images in a batch.
NETS = {
    "resnet50": 256,
    "caffenet": 512,
    "vgg16": 128,
    "googlenet": 256,
    "lenet": 64,
    "cifar10_quick": 100,
}
PEERS = {"compile": ("compiled",), "eager": ()}
TURN_S, ROUNDS_S = 0.3, 4.0  # what a turn, and what all rounds of a net should take
NUM_TO_WARM_UP = 5  # iterations: compiled, algorithms chosen, captured
REDUCED_MB = (100, 240)
IS_PLAYED = bool(os.environ.get("DTRAIN_PLAYED_GPU"))  # on the CPU, and small: programs/gpu_played.py

COMPILING_S, NUM_COMPILING = 110.0, 6  # in all, and how many at once

COLUMNS = (
    *("net, batch, precision", "images/s", "ms", "over compile", "over eager"),
    *("peak MB", "over compile's", "of best products"),
)
HEAD = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


class Bench:
    """Measures, prints and writes. environment: of all processes; it keeps what torch.compile has compiled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deadline = Deadline()
        self.environment = {
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": os.fspath(folder / "compiled"),
            "TORCHINDUCTOR_FX_GRAPH_CACHE": "1",
            "TORCHINDUCTOR_AUTOGRAD_CACHE": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.rates: dict[str, Any] = {}
        self.peers = PEERS if importlib.util.find_spec("torch") else {}
        out = os.environ.get("OUT")
        self._path = Path(out, "gpu_bench.md") if out else None

    def say(self, text: str) -> None:
        """Print a line or more, and write it."""
        print(text, flush=True)
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(text + "\n")

    def attempt(self, what: str, action: Callable[[], str]) -> None:
        """Say what `action` finds, or why it finds nothing."""
        if self.deadline.left_s <= 0:
            self.say(f"{what}: not measured, no time was left")
            return
        try:
            self.say(action())
        except Failed as failure:
            self.say(f"{what}: {failure}")

    def write_nets(self, names: Sequence[str]) -> None:
        """Write the prototxts of the nets."""
        texts = [f"{name}={batch_of(name)}" for name in names]
        run(self.deadline, self.environment, "gpu_texts.py", self.folder, *texts)

    def compile(self, rows: Sequence[tuple[str, str]]) -> str:
        """Let torch.compile fill its cache for nets in precisions, several at a time; return how that went."""
        deadline = Deadline(COMPILING_S)

        def compile_one(row: tuple[str, str]) -> bool:
            if deadline.left_s <= 0:
                return False
            with self._peer(deadline, *row, PEERS["compile"]) as process:
                try:
                    process.ready()
                    process.ask(1)
                except Failed:
                    return False
                return True

        with ThreadPoolExecutor(NUM_COMPILING) as pool:
            done = sum(pool.map(compile_one, rows))
        return f"torch.compile has compiled {done} of {len(rows)} in {COMPILING_S - deadline.left_s:.0f} s"

    def measure_rates(self) -> str:
        """Find what the GPU does at its best."""
        self.rates = json.loads(run(self.deadline, self.environment, "gpu_rates.py").splitlines()[-1])
        torch = "" if self.peers else "; PyTorch is not installed, so nothing is compared with it"
        return (
            f"{self.rates['engine']}: products {self.rates['bf16_flops'] / 1e12:.0f} TFLOP/s in bf16,"
            f" {self.rates['tf32_flops'] / 1e12:.0f} in TF32;"
            f" copies {self.rates['copy_bytes'] / 1e12:.2f} TB/s{torch}"
        )

    def measure(self, name: str, precision: str) -> str:
        """Return a net's row, and lines on peers that failed."""
        path, batch_size = self._text_of(name), batch_of(name)
        with ExitStack() as stack:
            args = name, batch_size, path, precision
            processes = {
                "": stack.enter_context(Process(self.deadline, self.environment, "gpu_nets.py", *args))
            }
            processes |= {
                title: stack.enter_context(self._peer(self.deadline, name, precision, words))
                for title, words in self.peers.items()
            }
            ways, failures = self._warm_up(processes)
            rounds = take_turns([*ways.values()], TURN_S, ROUNDS_S, num_to_warm_up=0)
            columns = dict(zip(ways, zip(*rounds, strict=True), strict=True))
            peaks = {title: way.ask("peak_mb") for title, way in ways.items()}
            flops = ways[""].ask("flops")
            params = {way.ask("num_params") for way in ways.values()}
        seconds = statistics.median(columns[""])
        best = self.rates.get(f"{precision}_flops")
        cells = [
            f"{name}, {batch_size}, {precision}",
            f"{batch_size / seconds:,.0f}",
            f"{1000 * seconds:.2f}",
            *(_ratio(columns, title) for title in PEERS),
            f"{peaks['']:,.0f}",
            f"{peaks[''] / peaks['compile']:.2f}" if peaks.get("compile") else "-",
            f"{flops / seconds / best:.0%}" if best else "-",
        ]
        if len(params) > 1:
            failures.append(f"{name}: the nets must have as many params, got {params}")
        return "\n".join(["| " + " | ".join(cells) + " |", *failures])

    def measure_reduction(self, num_mb: int) -> str:
        """Return a line on a reduction over one rank."""
        row = json.loads(run(self.deadline, self.environment, "gpu_reduction.py", num_mb).splitlines()[-1])
        return f"reduction of {num_mb} MB over one rank: {row['ms']:.2f} ms, {row['tb_per_s']:.2f} TB/s"

    def measure_data(self, precision: str) -> str:
        """Return a line on waiting for data."""
        row = json.loads(run(self.deadline, self.environment, "gpu_data.py", precision).splitlines()[-1])
        return (
            f"CaffeNet, {precision}, {row['batch_size']:.0f} images of 256x256 from an LMDB, cropped and mirrored:"
            f" {row['images_per_s']:,.0f} images/s, waiting for data {row['waiting']:.1%} of an iteration"
        )

    def profile(self, name: str, precision: str) -> str:
        """Return where the time of a net goes."""
        return run(self.deadline, self.environment, "gpu_profile.py", name, batch_of(name), precision) + "\n"

    def _warm_up(self, processes: dict[str, Process]) -> tuple[dict[str, Process], list[str]]:
        """Return those that train, and lines on the others. Raises Failed if ours does not."""
        ways, failures = {}, []
        for title, process in processes.items():
            try:
                process.ready()
                process.ask(NUM_TO_WARM_UP)
            except Failed as failure:
                if not title:
                    raise
                failures.append(f"{title}: {failure}")
            else:
                ways[title] = process
        return ways, failures

    def _peer(self, deadline: Deadline, name: str, precision: str, words: Sequence[str]) -> Process:
        device = () if IS_PLAYED else ("cuda",)
        args = self._text_of(name), *device, "tuned", precision, *words
        return Process(deadline, self.environment, "nets_torch.py", *args)

    def _text_of(self, name: str) -> Path:
        return self.folder / f"{name}.prototxt"


def batch_of(name: str) -> int:
    """Return how many images a batch of a net has."""
    return 2 if IS_PLAYED else NETS[name]


def _ratio(columns: dict[str, Sequence[float]], title: str) -> str:
    """Return how many of a peer's images/s ours are, by rounds."""
    if title not in columns:
        return "-"
    pairs = zip(columns[title], columns[""], strict=True)
    return f"{statistics.median(theirs / ours for theirs, ours in pairs):.2f}"


def main() -> None:
    """Measure the nets that the command line names, or all."""
    parser = argparse.ArgumentParser(description="An iteration of the nets of configs/ on a GPU.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETS))
    parser.add_argument("--precision", default="bf16,tf32", help="bf16, tf32 or both (default)")
    parser.add_argument("--profile", action="store_true", help="print where the time goes instead")
    args = parser.parse_args()
    names, precisions = args.names or [*NETS], args.precision.split(",")
    unknown = [name for name in names if name not in NETS]
    if unknown:
        parser.error(f"unknown net {', '.join(unknown)}; known: {', '.join(NETS)}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        if args.profile:
            for name in names:
                bench.attempt(name, lambda name=name: bench.profile(name, precisions[0]))  # type: ignore[misc]
            return
        measure_all(bench, names, precisions)


def measure_all(bench: Bench, names: Sequence[str], precisions: Sequence[str]) -> None:
    """Measure what the issue's table asks for: nets in the first precision, what is no net, nets in the others."""
    bench.attempt("rates", bench.measure_rates)
    bench.write_nets(names)
    rows = [(name, precision) for precision in precisions for name in names]
    if bench.peers:
        bench.attempt("compiling", lambda: bench.compile(rows))
    bench.say(f"\n{HEAD}")
    for name, precision in rows[: len(names)]:
        bench.attempt(f"{name}, {precision}", lambda row=(name, precision): bench.measure(*row))  # type: ignore[misc]
    for num_mb in REDUCED_MB:
        bench.attempt(f"reduction of {num_mb} MB", lambda num_mb=num_mb: bench.measure_reduction(num_mb))  # type: ignore[misc]
    for precision in precisions:
        bench.attempt(f"data, {precision}", lambda precision=precision: bench.measure_data(precision))  # type: ignore[misc]
    for name, precision in rows[len(names) :]:
        bench.attempt(f"{name}, {precision}", lambda row=(name, precision): bench.measure(*row))  # type: ignore[misc]


if __name__ == "__main__":
    main()
