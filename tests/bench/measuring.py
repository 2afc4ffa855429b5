"""Running a benchmark's program in processes of its own, and medians: what all benchmarks here share."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dtrain.launcher.mpirun import find_mpirun, mpirun_environment

HAS_TORCH = importlib.util.find_spec("torch") is not None
PROGRAMS = Path(__file__).with_name("programs")
ROUNDS = 5


def run_program(name: str, *args: object, num_ranks: int = 0, num_threads: int = 1) -> dict[str, float]:
    """Run a program, under mpirun if num_ranks is given, and return the JSON that it prints."""
    command = [sys.executable, os.fspath(PROGRAMS / name), *map(str, args)]
    env = dict(os.environ, OPENBLAS_NUM_THREADS=str(num_threads), OMP_NUM_THREADS=str(num_threads))
    if num_ranks:
        command = [find_mpirun(), "-np", str(num_ranks), *command]
        env = mpirun_environment(env, num_ranks)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stdout}{done.stderr}")
    lines = done.stdout.strip().splitlines()
    result: dict[str, float] = json.loads(lines[-1]) if lines else {}  # some are run for their time alone
    return result


def lenet_database(folder: Path) -> Path:
    """Return the database that LeNet's benchmarks read; the first call writes it."""
    database = folder / "train"
    if not database.exists():
        run_program("lenet_data.py", database)
    return database


def median(rows: Sequence[dict[str, float]], key: str) -> float:
    """Return the median of `key`."""
    return statistics.median(row[key] for row in rows)
