"""Runs test files of the whole repository on the real GPU, several at a time, each in a process of its own.

So one that crashes, hangs or spoils its CUDA context costs no other, and all take as long as the slowest few. What
they print is kept whole in one file, suites.log, in the folder that the variable OUT names if there is one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.played.cupy import REAL_GPU

ROOT = Path(__file__).resolve().parents[2]
# In the order in which a failure tells most.
FOLDERS = (
    "tests/core/engines/cupy",
    "tests/core/engines/cudnn",
    "tests/core/solver",
    "tests/core/net",
    "tests/dist",
    "tests/core/engines/reference",
    "tests/core/layers",
)
# What a file with tests for GPUs has in it, and what such tests are called where others are beside them.
_PLAYS = re.compile(r"play_cupy|play_cudnn|captured_runs")
_IN_TABLES = re.compile(r"\bcases\(|cupy|cudnn|gpu")
SELECTED = "cupy or cudnn or kernel or gpu"
TABLES = ("tests/core/engines/", "tests/core/layers/")

NUM_AT_ONCE = 8
TIMEOUT_S = 240.0  # of one
TOTAL_S = 420.0  # what is not begun by then is not run
NO_TESTS = 5  # pytest's exit code for it
NUM_SHOWN = 3  # failures of a file, and reasons; the log has all


@dataclass(frozen=True)
class Verdict:
    """How a file's tests ended. code: pytest's; None: they did not. log: all that was printed."""

    code: int | None
    log: str

    def describe(self) -> str:
        """Return what the log says in short: the first failures, why, and how many passed."""
        if self.code is None and not self.log:
            return f"not begun within {TOTAL_S:g} s"
        failed = re.findall(r"^(?:FAILED|ERROR) .*", self.log, re.MULTILINE)
        whys = [*dict.fromkeys(re.findall(r"^E  .*", self.log, re.MULTILINE))]
        how = "did not end in time" if self.code is None else f"exit code {self.code}"
        lines = [*failed[:NUM_SHOWN], *whys[:NUM_SHOWN]] or self.log.splitlines()[-NUM_SHOWN:]
        last = self.log.rstrip().rpartition("\n")[2]
        return "\n".join([f"{how}, {len(failed)} failed; {last}", *(line[:160] for line in lines)])


class Suites:
    """Begins to run files at once. started: by their paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._began = time.monotonic()
        self.path = Path(os.environ.get("OUT") or tempfile.mkdtemp(prefix="dtrain-gpu-"), "suites.log")
        self._writing = threading.Lock()
        self._pool = ThreadPoolExecutor(NUM_AT_ONCE)
        self._running: set[subprocess.Popen[bytes]] = set()
        self.started: dict[str, Future[Verdict]] = {
            path: self._pool.submit(self._run, path) for path in paths
        }

    def verdict(self, path: str) -> Verdict:
        """Wait for the end of a file's tests."""
        return self.started[path].result()

    def close(self) -> None:
        """End what still runs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in list(self._running):
            _end(process)

    def _run(self, path: str) -> Verdict:
        if time.monotonic() - self._began > TOTAL_S:
            return Verdict(None, "")
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-q", "--tb=short", "--color=no", "-p", "no:cacheprovider"]
                + (["-k", SELECTED, path] if path.startswith(TABLES) else [path]),
                cwd=ROOT,
                env={**os.environ, REAL_GPU: "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._running.add(process)
            try:
                code: int | None = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = None
            _end(process)
            self._running.discard(process)
            out.seek(0)
            log = out.read().decode(errors="replace")
        with self._writing, self.path.open("a", encoding="utf-8") as file:
            file.write(f"===== {path}\n{log}\n")
        return Verdict(code, log)


def find_files() -> list[str]:
    """Return the test files that are run, by their paths in the repository."""
    found = [
        path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("test_*.py"))
    ]
    return [path.as_posix() for path in found if _is_for_gpus(path.as_posix())]


def _is_for_gpus(path: str) -> bool:
    pattern = _IN_TABLES if path.startswith(TABLES) else _PLAYS
    return bool(pattern.search(path + (ROOT / path).read_text(encoding="utf-8")))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
