"""Reads damaged files, those of each format in a process of their own.

    python -m tests.fuzzing.batch SEED COUNT FOLDER FORMAT …

Libraries in C may crash, hang or take all memory on a damaged file; then only that format's process ends. Input i of
a format depends on (seed, format, i) alone. Printed is, as JSON, the Outcome of each format.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random

from dtrain.core.errors import UserError
from dtrain.data.errors import DataError
from tests.fuzzing.damage import Damager
from tests.fuzzing.format import Format
from tests.fuzzing.formats import FORMATS

MAX_MEMORY_BYTES = 4 << 30
MAX_SECONDS = 5.0  # for one file
START_S, INPUT_S = 60.0, 0.1  # for a format: at most so long, and so much longer for each file
MAX_FAILURES = 5
OUTCOME, INDEX = "outcome.json", "index"


@dataclass
class Outcome:
    """What became of a format's inputs; failures: what was neither, as (number of the input, what happened)."""

    num_read: int = 0
    num_refused: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)


class BadMessage(Exception):
    """Say that an error of dtrain's own is no sentence about the file."""


def make_input(format: Format, samples: list[bytes], seed: int, index: int) -> bytes:
    """Return damaged input number `index`."""
    return Damager(samples, format.words).damage(Random(f"{seed} {format.name} {index}"))


def run_format(format: Format, seed: int, count: int, folder: Path) -> Outcome:
    """Read `count` damaged files in `folder`. Raises what reading an undamaged one raises."""
    samples = format.make(folder)
    outcome, kinds = Outcome(), set()
    path = folder / format.file_name
    for sample in samples:
        path.write_bytes(sample)
        format.read(path)
    for index in range(count):
        (folder / INDEX).write_text(str(index))
        path.unlink()  # one that is mapped lives on
        path.write_bytes(make_input(format, samples, seed, index))
        try:
            read_one(format, path, outcome)
        except Exception as error:
            kind = (type(error), traceback.extract_tb(error.__traceback__)[-1].lineno)
            if kind not in kinds and len(outcome.failures) < MAX_FAILURES:
                kinds.add(kind)
                outcome.failures.append((index, traceback.format_exc()))
    return outcome


def read_one(format: Format, path: Path, outcome: Outcome) -> None:
    """Read one file and count it. Raises whatever is no error of dtrain's own, or took too long."""
    start = time.monotonic()
    try:
        format.read(path)
        outcome.num_read += 1
    except (UserError, DataError) as error:
        outcome.num_refused += 1
        for problem in error.problems if isinstance(error, UserError) else (error.problem,):
            if not problem.startswith(str(path.parent) if format.names_its_file else "") or len(problem) < 10:
                raise BadMessage(f"no sentence about {path}: {problem!r}") from error
    if time.monotonic() - start > MAX_SECONDS:
        raise TimeoutError(f"reading took {time.monotonic() - start:.1f} s")


def run_formats(seed: int, count: int, folder: Path, names: list[str]) -> dict[str, Outcome]:
    """Run each format in a fork of this process, as many at a time as there are cores."""
    deadlines: dict[str, float] = {}
    running: dict[str, BaseProcess] = {}
    outcomes: dict[str, Outcome] = {}
    waiting = list(names)
    while waiting or running:
        while waiting and len(running) < (os.cpu_count() or 1):
            name = waiting.pop(0)
            (folder / name).mkdir()
            arguments = (FORMATS[name], seed, count, folder / name)
            running[name] = multiprocessing.get_context("fork").Process(target=_run_to_file, args=arguments)
            deadlines[name] = time.monotonic() + START_S + INPUT_S * count
            running[name].start()
        for name, process in list(running.items()):
            process.join(0.01)
            hangs = process.exitcode is None and time.monotonic() > deadlines[name]
            if hangs:
                process.kill()
                process.join()
            if process.exitcode is not None:
                outcomes[name] = _outcome_of(folder / name, "hang" if hangs else process.exitcode)
                del running[name]
    return outcomes


def _run_to_file(format: Format, seed: int, count: int, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    (folder / OUTCOME).write_text(json.dumps(asdict(run_format(format, seed, count, folder))))


def _outcome_of(folder: Path, end: int | str) -> Outcome:
    """Return what a process left behind that hung or ended with an exit code."""
    if end == 0:
        return Outcome(**json.loads((folder / OUTCOME).read_text()))
    words = "reading hangs" if end == "hang" else f"reading ends in exit code {end}"
    if isinstance(end, int) and end < 0:
        words = f"reading ends in {signal.Signals(-end).name}"
    index = int((folder / INDEX).read_text()) if (folder / INDEX).exists() else -1
    return Outcome(failures=[(index, words)])


def main(seed: str, count: str, folder: str, *names: str) -> None:
    """Run the formats and print their outcomes."""
    outcomes = run_formats(int(seed), int(count), Path(folder), list(names))
    sys.stdout.write(json.dumps({name: asdict(outcome) for name, outcome in outcomes.items()}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
