"""``dtrain demo``: train a real net on real data that needs no download, on two ranks, in under a minute.

It does what the README tells users to do, with their own commands: convert, mpirun, read the log.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from dtrain.core.errors import UserError
from dtrain.data.convert_digits import convert_digits
from dtrain.dist.errors import ClusterError
from dtrain.launcher.arguments import whole_number
from dtrain.launcher.mpirun import (
    find_mpirun,
    mpirun_command,
    mpirun_environment,
    mpirun_settings,
    num_physical_cores,
)
from dtrain.launcher.terminal import PROGRESS_VARIABLE

SOLVER = "configs/digits/solver.prototxt"
MODEL = "configs/digits/train_val.prototxt"
DATABASES = "databases/digits"

_SCORE = re.compile(r"Test net output #\d+: (\S*accuracy\S*) = (\S+)")
_SNAPSHOT = re.compile(r"Snapshotting solver state to binary proto file (\S+)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--num-ranks", type=whole_number, default=2, help="number of ranks (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Convert the digits unless that is done, train, and say what came out and what to try next."""
    if not Path(SOLVER).is_file():
        raise UserError(f"dtrain demo: must run in a checkout of dtrain, found no {SOLVER} in {os.getcwd()}")
    if not Path(DATABASES, "train").exists():
        print(
            f"Converting scikit-learn's handwritten digits to {DATABASES}/train and …/test",
            flush=True,
        )
        convert_digits(DATABASES)
    print(f"Running: {readable_command(args.num_ranks)}", flush=True)
    exit_code, text = run_ranks(args.num_ranks)
    if exit_code:
        raise ClusterError(f"dtrain demo: mpirun must end with code 0, got {exit_code}; see the lines above")
    print("\n".join(closing_lines(text, args.num_ranks)))
    return 0


def readable_command(num_ranks: int, *options: str) -> str:
    """Return the training command as a user would type it here, with the variables that mpirun wants."""
    settings = mpirun_settings(num_ranks, num_physical_cores(), os.geteuid() == 0)
    needed = [f"{name}={value}" for name, value in settings.items() if name not in os.environ]
    return shlex.join([*needed, "mpirun", "-np", str(num_ranks), "dtrain", SOLVER, *options])


def run_ranks(num_ranks: int) -> tuple[int, str]:
    """Train on `num_ranks` ranks, showing the log as it comes; return mpirun's exit code and the log."""
    environment = mpirun_environment(os.environ, num_ranks)
    if sys.stderr.isatty():  # mpirun writes to our pipe; what we show of it is on a terminal all the same
        environment[PROGRESS_VARIABLE] = os.ttyname(sys.stderr.fileno())
    command = mpirun_command(find_mpirun(), num_ranks, [SOLVER])
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        text = show_and_keep(process.stderr)
    return process.returncode, text


def show_and_keep(pipe: IO[bytes]) -> str:
    """Copy what comes through `pipe` to stderr at once, parts of lines too; return it all."""
    kept = bytearray()
    while chunk := os.read(pipe.fileno(), 1 << 16):
        sys.stderr.buffer.write(chunk)
        sys.stderr.flush()
        kept += chunk
    return kept.decode(errors="replace")


def closing_lines(log_text: str, num_ranks: int) -> list[str]:
    """Return what the demo ends with: the last test's accuracy, the snapshot, how to resume, what to try."""
    scores, states = _SCORE.findall(log_text), _SNAPSHOT.findall(log_text)
    if not (scores and states):
        return ["", "The log has no test or no snapshot"]
    weights = states[-1].removesuffix(".solverstate") + ".caffemodel"
    return [
        "",
        f"Test accuracy: {scores[-1][1]}",
        f"Snapshot:      {states[-1]}, weights {weights}",
        "",
        "Resume from a snapshot, or with --resume auto from the newest:",
        f"  {readable_command(num_ranks, '--snapshot', states[0])}",
        "Try next:",
        *([] if shutil.which("dtrain") else [f"  source {Path(sys.executable).with_name('activate')}"]),
        f"  dtrain check {SOLVER}",
        f"  dtrain test --model {MODEL} --weights {weights} --iterations 6",
        f"  dtrain time --model {MODEL}",
        "  your own net and data: see README.md",
    ]
