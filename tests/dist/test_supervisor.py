"""The supervisor under a real mpirun: every way for a rank to be lost ends the job, soon, with one line.

Each program is a job of three ranks that sum; in iteration 5 one of them does the test's action.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dtrain.dist import supervisor
from dtrain.dist.supervisor import can_supervise, launched_pid, state_of, watched
from dtrain.launcher.mpirun import find_mpirun
from tests.conftest import MPIRUN_ENVIRONMENT

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).resolve().parents[2]
RANK_OF_TWO = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}

PROGRAM = """
import ctypes, os, resource, signal, sys, time
from pathlib import Path
from types import SimpleNamespace
from dtrain.dist import watchdog
from dtrain.dist.errors import ClusterError, LaunchError
from dtrain.launcher import main as command_line

watchdog.STOPPED_S = 2.0  # not 10, which a fault of tests/test_faults.py waits for
folder = Path(os.environ["FOLDER"])

def run(args):
    import numpy as np
    from dtrain.launcher.job import open_job
    with open_job(None, TIMEOUT) as job:
        rank, activity = job.communicator.rank, job.activity
        (folder / f"{rank}.pid").write_text(f"{os.getppid()} {os.getpid()}")
        array = np.zeros(10, np.float32)
        for activity.iteration in range(1000000):
            activity.doing = 'computing layer "conv1"'
            if activity.iteration == 5 and rank == 1:
                (folder / "failed").touch()
                ACTION
            activity.doing = "summing"
            job.communicator.all_reduce(array)
            time.sleep(0.01)
    return 0

command_line.load_command = lambda command: SimpleNamespace(add_arguments=lambda parser: None, run=run)
sys.argv[1:] = ["train"]
sys.exit(command_line.main())
"""
FAILING_LINE = PROGRAM[: PROGRAM.index("ACTION")].count("\n") + 1


def is_alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z", "X")


def processes(folder: Path) -> list[int]:
    """Return supervisors and ranks of a job, in turn."""
    return [int(pid) for path in sorted(folder.glob("*.pid")) for pid in path.read_text().split()]


def expect_no_process(folder: Path) -> None:
    """Fail if a process of the job is alive a moment after its end."""
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in processes(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in processes(folder) if is_alive(pid)] == []


def program(action: str, timeout_s: float | None = None) -> list[str]:
    return ["-c", PROGRAM.replace("ACTION", action).replace("TIMEOUT", repr(timeout_s))]


def fail_under_mpirun(
    mpirun: Mpirun, folder: Path, action: str, timeout_s: float | None = None, within_s: float = 10
) -> subprocess.CompletedProcess[str]:
    """Run PROGRAM on 3 ranks, of which rank 1 does `action`; check that it ends soon and leaves nothing behind."""
    env = {"TMPDIR": str(folder), "FOLDER": str(folder)}
    result = mpirun(3, program(action, timeout_s), env=env)
    assert time.time() - (folder / "failed").stat().st_mtime < within_s
    expect_no_process(folder)
    return result


def the_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of the job, without the zero byte that ends a notice of Open MPI before it."""
    lines = [line for line in result.stderr.splitlines() if re.match("\0?rank [0-9]+ of 3 ", line)]
    assert len(lines) == 1, result.stderr
    return lines[0].lstrip("\0")


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL {where}; it had used up to "),
        ("ctypes.string_at(0)", "was killed by SIGSEGV {where}"),
        ("os._exit(0)", "ended with exit code 0 {where}; "),
        ("sys.exit(0)", "failed {where}: sys.exit(0) was called"),
        (
            "raise OSError(28, 'No space left')",
            "failed {where}: OSError: [Errno 28] No space left (<string>:",
        ),
        (
            "resource.setrlimit(resource.RLIMIT_AS, (1, 1)); bytearray(2**30)",
            "failed {where}: MemoryError (<string>:",
        ),
        ("raise ClusterError('lost')", "failed {where}: lost"),
    ],
    ids=lambda value: value.partition("(")[0] if "(" in value else "",
)
def test_rank_lost_under_mpirun_ends_the_job_with_one_line(
    mpirun: Mpirun, tmp_path: Path, action: str, text: str
) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, action)
    where = 'at iteration 5 while computing layer "conv1"'
    line = the_line(result)
    assert line.startswith("rank 1 of 3 (")
    assert f") {text.format(where=where)}" in line
    assert result.returncode == 3


def test_users_mistake_of_one_rank_under_mpirun_ends_the_job(mpirun: Mpirun, tmp_path: Path) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "raise LaunchError('a.txt: bad')")
    assert the_line(result).endswith(": a.txt: bad")
    assert result.returncode == 3


def test_rank_stuck_in_a_library_under_mpirun_is_ended_after_the_timeout(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "ctypes.PyDLL(None).sleep(600)", timeout_s=2)
    line = the_line(result)
    assert ") did nothing new for " in line
    assert f'at iteration 5 while computing layer "conv1" (<string>:{FAILING_LINE} in run); ' in line
    assert result.returncode == 3


def test_rank_stopped_under_mpirun_is_ended_after_the_grace(mpirun: Mpirun, tmp_path: Path) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "os.kill(os.getpid(), signal.SIGSTOP)", within_s=20)
    assert ") was stopped for 2 s (SIGSTOP or its like) at iteration 5 " in the_line(result)
    assert result.returncode == 3


def test_rank_that_leaves_the_job_early_makes_others_wait_no_longer_than_the_timeout(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    # No rank is at fault by itself: rank 1 waits for what nobody sends, in a call of its own.
    action = "job.communicator.barrier()"
    result = fail_under_mpirun(mpirun, tmp_path, action, timeout_s=2, within_s=20)
    assert re.search(
        r"\) waited \d+ s in (barrier|all_reduce) for other ranks at iteration ", the_line(result)
    )
    assert result.returncode == 3


def test_signal_before_training_passed_on_by_a_supervisor_ends_the_job_at_once(
    mpirun: Mpirun, tmp_path: Path
) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "os.kill(os.getppid(), signal.SIGTERM); time.sleep(60)")
    assert ") was killed by SIGTERM at iteration 5 " in the_line(result)
    assert result.returncode == 143  # 128 + 15


@pytest.mark.parametrize("whose", [0, 1], ids=["supervisor", "rank"])
def test_kill_of_a_supervisor_or_a_rank_from_outside_ends_the_job(
    mpirun: Mpirun, tmp_path: Path, whose: int
) -> None:
    killer = f"pids = (os.getppid(), os.getpid()); os.kill(pids[{whose}], signal.SIGKILL); time.sleep(60)"
    result = fail_under_mpirun(mpirun, tmp_path, killer)
    assert result.returncode != 0


def test_kill_of_mpirun_leaves_no_process(tmp_path: Path) -> None:
    env = {**os.environ, **MPIRUN_ENVIRONMENT, "TMPDIR": str(tmp_path), "FOLDER": str(tmp_path)}
    env["PYTHONPATH"] = str(ROOT)
    command = [find_mpirun(), "-n", "3", sys.executable, *program("pass")]
    with subprocess.Popen(
        command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "failed").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.kill()
    assert len(processes(tmp_path)) == 6
    expect_no_process(tmp_path)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (RANK_OF_TWO, True),
        ({"PMIX_RANK": "0"}, True),  # whose world's size is not told
        ({}, False),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, False),
    ],
    ids=str,
)
def test_can_supervise_one_of_several_ranks(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: bool
) -> None:
    # Whatever other tests have left in this process
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    assert can_supervise(environment) is expected


def test_can_supervise_with_threads_or_mpi_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    assert not can_supervise(RANK_OF_TWO)
    done.set()
    thread.join()
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", sys)
    assert not can_supervise(RANK_OF_TWO)


def test_process_that_nobody_watches_says_so() -> None:
    assert watched() is None
    assert launched_pid() == os.getpid()
    supervisor.announce_exit(0)  # has nobody to tell


def test_state_of_a_process_whose_name_has_parentheses(tmp_path: Path) -> None:
    (tmp_path / "12").mkdir()
    (tmp_path / "12" / "stat").write_text("12 (a) (b) T 1 12 12 0 -1")
    assert state_of(12, tmp_path) == "T"
    assert state_of(13, tmp_path) == ""
