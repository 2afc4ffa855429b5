"""What tests of several folders share: running a program under a real mpirun, a log that each finds untouched, and
lines that are printed at the end.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from dtrain.launcher.log import ConsoleHandler
from dtrain.launcher.mpirun import find_mpirun, mpirun_settings

ROOT = Path(__file__).resolve().parents[1]

# For any user and for more ranks than cores, whatever machine this is.
MPIRUN_ENVIRONMENT = mpirun_settings(num_ranks=2, num_cores=1, is_root=True)

FIGURES = pytest.StashKey[list[str]]()


class Mpirun(Protocol):
    """Run `python *args` on `num_ranks` ranks under the mpirun beside `python`; see `mpirun`."""

    def __call__(
        self,
        num_ranks: int,
        args: Sequence[str | os.PathLike[str]],
        timeout_s: float = 60.0,
        env: Mapping[str, str] | None = None,
        cwd: str | os.PathLike[str] = ROOT,
        python: str = sys.executable,
    ) -> subprocess.CompletedProcess[str]: ...


def pytest_collection_finish() -> None:
    """Take what is there before the first test, modules and thousands of tests, out of the collector's rounds."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return a function that notes a line to be printed when the tests are done."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the noted lines."""
    for line in terminalreporter.config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _log_without_commands() -> Iterator[None]:
    """Undo what a command does to logging, which it leaves to the end of its process: its stream is closed soon."""
    yield
    root = logging.getLogger()
    if any(isinstance(handler, ConsoleHandler) for handler in root.handlers):
        root.handlers = [handler for handler in root.handlers if not isinstance(handler, ConsoleHandler)]
        root.setLevel(logging.WARNING)
        logging.captureWarnings(False)


@pytest.fixture
def mpirun() -> Mpirun:
    """Return a function that runs this Python with `args` under mpirun and gives its output as text.

    When `timeout_s` is over, all that it started is ended, and the test fails with what was printed.
    """
    if any(name in os.environ for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK")):
        pytest.skip("these tests start mpirun themselves; they are not run by one")
    return _run


def _run(
    num_ranks: int,
    args: Sequence[str | os.PathLike[str]],
    timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] = ROOT,
    python: str = sys.executable,
) -> subprocess.CompletedProcess[str]:
    command = [find_mpirun(python), "-n", str(num_ranks), python, *(os.fspath(arg) for arg in args)]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, **MPIRUN_ENVIRONMENT, "PYTHONPATH": path, **(env or {})}
    # Files, not pipes: a rank that outlives mpirun would hold a pipe open, and reading it would never end.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )
        try:
            process.wait(timeout_s)
            ended = True
        except subprocess.TimeoutExpired:
            ended = False
        finally:
            _end(process)
        out.seek(0)
        err.seek(0)
        result = subprocess.CompletedProcess(command, process.returncode, out.read(), err.read())
    if not ended:
        pytest.fail(f"{command} did not end within {timeout_s:g} s\n{result.stdout}\n{result.stderr}")
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """End mpirun, which on SIGTERM ends its ranks, and then by force whatever of its group is left."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
