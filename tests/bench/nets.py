"""The benchmark of the nets of configs/: an iteration in dtrain and in PyTorch (eager), on one thread and on two.

nets.py [--threads 1,2] [--precision bf16] [--layers] [NAME…]     by itself; `make bench ARGS=nets` runs all of them

For each net there are processes of dtrain's, of PyTorch's and one that measures what the machine can do. They take
turns in rounds; medians are printed, and the ratio round by round: of processor time on one thread, of the clock's on
several. Behind them stands the share of the roof that dtrain reached (roofline.py). --precision bf16: dtrain's, and
PyTorch under autocast. --layers: dtrain's time by layer instead.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import HAS_TORCH, PROGRAMS
from roofline import describe, layer_seconds

from dtrain.launcher.threads import THREAD_VARIABLES, thread_settings

# Images in a batch.
NETS = {
    "lenet": 64,
    "cifar10_quick": 100,
    "caffenet": 16,
    "googlenet": 8,
    "resnet50": 8,
    "vgg16": 4,
    "mobilenet_v1": 16,
}
# As its users begin, and with what they can ask for.
PEERS: dict[str, tuple[str, ...]] = {
    "PyTorch (eager)": (),
    "PyTorch, channels last and fused update": ("tuned",),
}
NUM_THREADS = (1, 2)
TURN_S, ROUNDS_S = 0.5, 25.0  # what a turn, and what all rounds of a net should take
LEAST_ROUNDS, MOST_ROUNDS = 3, 9
NUM_DEAREST = 10


class Turns:
    """A process that takes turns; see programs/turns.py."""

    def __init__(self, environment: dict[str, str], program: str, *args: object) -> None:
        command = [sys.executable, os.fspath(PROGRAMS / program), *map(str, args)]
        self._program = program
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def __enter__(self) -> Turns:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the process end."""
        self._process.communicate()

    def ask(self, line: object) -> Any:
        """Return the process's answer."""
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)
        return self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self._program} failed")
        return json.loads(answer)


def bench_nets(
    folder: Path,
    names: tuple[str, ...] = tuple(NETS),
    threads: tuple[int, ...] = NUM_THREADS,
    precision: tuple[str, ...] = (),
) -> None:
    """Nets of configs/ on made-up images: milliseconds, share of the roof, peak of memory, beside PyTorch's.

    precision: ("bf16",), or none for float32.
    """
    for num_threads in threads:
        for name in names:
            print(_measure(folder, name, num_threads, precision), flush=True)


def _measure(folder: Path, name: str, num_threads: int, precision: tuple[str, ...]) -> str:
    """Return the lines of a net."""
    path, theirs = folder / f"{name}.prototxt", _environment(num_threads)
    with ExitStack() as stack:
        args = name, NETS[name], path, *precision
        ours = stack.enter_context(Turns(_our_environment(num_threads), "nets.py", *args))
        machine = stack.enter_context(Turns(theirs, "machine_rates.py", *precision))
        peers = {
            title: stack.enter_context(Turns(theirs, "nets_torch.py", path, *words, *precision))
            for title, words in (PEERS if HAS_TORCH else {}).items()
        }
        ways = [ours, *peers.values()]
        rounds = take_turns(ways, TURN_S, ROUNDS_S, between=lambda: machine.ask(1))
        peaks = [way.ask("peak_mb") for way in ways]
        params = {way.ask("num_params") for way in ways}
        if len(params) > 1:
            raise SystemExit(f"{name}: the nets must have as many params, got {params}")
        work, rates = ours.ask("work"), machine.ask("rates")
    seconds = [statistics.median(column) for column in zip(*rounds, strict=True)]
    line = (
        f"{_title(name, num_threads, precision)}: {1000 * seconds[0]:.1f} ms, peak {peaks[0]:.0f} MB\n"
        f"    {describe(work, params.pop(), rates, seconds[0])}"
    )
    for i, title in enumerate(peers, start=1):
        ratio = statistics.median(row[i] / row[0] for row in rounds)
        line += (
            f"\n    {title} {1000 * seconds[i]:.1f} ms, its time over ours: {ratio:.2f}; "
            f"peak {peaks[i]:.0f} MB, over ours: {peaks[i] / peaks[0]:.2f}"
        )
    return line


def _environment(num_threads: int) -> dict[str, str]:
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(num_threads))}


def _our_environment(num_threads: int) -> dict[str, str]:
    """Return what `dtrain train` would add to it, too."""
    environment = _environment(num_threads)
    return {**environment, **thread_settings(environment, num_threads)}


def _title(name: str, num_threads: int, precision: tuple[str, ...]) -> str:
    threads = f"{num_threads} thread{'s' * (num_threads > 1)}"
    return ", ".join([name, f"{NETS[name]} images", threads, *precision])


def take_turns(
    ways: Sequence[Turns],
    turn_s: float,
    rounds_s: float,
    num_to_warm_up: int = 1,
    between: Callable[[], object] = lambda: None,
) -> list[list[float]]:
    """Return for each round the seconds of an iteration of each way.

    A turn takes `turn_s`, all rounds `rounds_s` or so. between: is called behind each round.
    """
    for way in ways:
        way.ask(num_to_warm_up)
    num_iterations = [max(1, round(turn_s / way.ask(1))) for way in ways]
    rounds: list[list[float]] = []
    began = time.perf_counter()
    while len(rounds) < LEAST_ROUNDS or (
        len(rounds) < MOST_ROUNDS and time.perf_counter() - began < rounds_s
    ):
        rounds.append([way.ask(number) / number for way, number in zip(ways, num_iterations, strict=True)])
        between()
    return rounds


def print_layers(folder: Path, name: str, num_threads: int, precision: tuple[str, ...]) -> None:
    """Print which layers of a net take longest in dtrain, and what the machine's rates would let them take."""
    path = folder / f"{name}.prototxt"
    with Turns(_our_environment(num_threads), "nets.py", name, NETS[name], path, *precision) as ours:
        with Turns(_environment(num_threads), "machine_rates.py", *precision) as machine:
            machine.ask(5)
            rates = machine.ask("rates")
        ours.ask(1)
        layers, num_params = ours.ask("layers"), ours.ask("num_params")
        iteration_ms = 1000 * statistics.median(ours.ask(1) for _ in range(3))
    by_type: Counter[str] = Counter()
    for layer in layers:
        by_type[layer["type"]] += sum(layer["ms"])
    total_ms = sum(by_type.values())
    print(
        f"{_title(name, num_threads, precision)}: {iteration_ms:.1f} ms an iteration; "
        f"its layers one by one {total_ms:.1f}, so the update and the rest {iteration_ms - total_ms:.1f}\n"
        f"    {describe(layers, num_params, rates, iteration_ms / 1000)}\n"
        f"    {', '.join(f'{kind} {ms / iteration_ms:.1%}' for kind, ms in by_type.most_common())}\n"
        f"    {'layer':<50}{'forward':>9}{'backward':>9}{'share':>7}{'GFLOP/s':>9}{'roof ms':>9}"
    )
    for layer in sorted(layers, key=lambda layer: -sum(layer["ms"]))[:NUM_DEAREST]:
        ms = sum(layer["ms"])
        print(
            f"    {layer['name']:<50}{layer['ms'][0]:>9.2f}{layer['ms'][1]:>9.2f}"
            f"{ms / iteration_ms:>7.1%}{sum(layer['flops']) / ms / 1e6:>9.1f}"
            f"{1000 * layer_seconds(layer, rates):>9.2f}"
        )


def main() -> None:
    """Measure the nets that the command line names, or all."""
    parser = argparse.ArgumentParser(
        description="An iteration of the nets of configs/ in dtrain and in PyTorch."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETS))
    parser.add_argument("--threads", default=",".join(map(str, NUM_THREADS)), help="how many, such as 1,2")
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32")
    parser.add_argument("--layers", action="store_true", help="print which layers take longest")
    args = parser.parse_args()
    unknown = [name for name in args.names if name not in NETS]
    if unknown:
        parser.error(f"unknown net {', '.join(unknown)}; known: {', '.join(NETS)}")
    names, threads = tuple(args.names or NETS), tuple(map(int, args.threads.split(",")))
    precision = ("bf16",) if args.precision == "bf16" else ()
    with tempfile.TemporaryDirectory() as folder:
        if not args.layers:
            bench_nets(Path(folder), names, threads, precision)
            return
        for num_threads in threads:
            for name in names:
                print_layers(Path(folder), name, num_threads, precision)


if __name__ == "__main__":
    main()
