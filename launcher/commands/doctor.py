"""``dtrain doctor``: look at everything that training needs of this machine; with --bench, how fast ranks sum."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
from types import ModuleType

from dtrain.dist.errors import LaunchError
from dtrain.dist.launch_environment import launched_rank, launcher_of
from dtrain.launcher.arguments import whole_number
from dtrain.launcher.diagnosis import diagnose
from dtrain.launcher.mpirun import find_mpirun, mpirun_command, mpirun_environment

_BENCH_TIMEOUT_S = 900


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--bench",
        action="store_true",
        help="measure every communicator's all_reduce too; under mpirun that alone, among its ranks",
    )
    parser.add_argument(
        "--ranks", type=whole_number, default=2, help="ranks that --bench starts on this host (default: 2)"
    )
    parser.add_argument(
        "--largest", type=whole_number, default=256, help="largest array of --bench, in MB (default: 256)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the findings, the table of --bench, then the problems; return 2 if there are any."""
    if args.bench and launcher_of(os.environ):
        load_bench().measure_world(args.largest * 2**20)
        return 0
    if launched_rank(os.environ):
        return 0
    problems = []
    for finding in diagnose():
        print(f"{finding.subject + ':':<18} {finding.text}", flush=True)
        problems += [finding.problem] if finding.problem else []
    if args.bench:
        problem = start_measuring(args.ranks, args.largest)
        problems += [problem] if problem else []
    print("\n".join(problems or ["ok"]))
    return 2 if problems else 0


def load_bench() -> ModuleType:
    """Import what measures, and with it numpy: doctor itself must run where that is missing or broken."""
    return importlib.import_module("dtrain.launcher.communicator_bench")


def start_measuring(num_ranks: int, largest_mb: int) -> str:
    """Let mpirun start ranks that measure and print their table; return what went wrong, or ""."""
    try:
        mpirun = find_mpirun()
    except LaunchError as error:
        return str(error)
    arguments = ["doctor", "--bench", "--largest", str(largest_mb)]
    command = mpirun_command(mpirun, num_ranks, arguments)
    try:
        done = subprocess.run(
            command, env=mpirun_environment(os.environ, num_ranks), timeout=_BENCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"dtrain doctor --bench: {num_ranks} ranks must end within {_BENCH_TIMEOUT_S} s, got no end"
    if done.returncode:
        return (
            f"dtrain doctor --bench: mpirun must end with code 0, got {done.returncode}; see the lines above"
        )
    return ""
