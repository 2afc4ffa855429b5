"""A rank that fails alone ends the job: in threads for the wording, under mpirun for real."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dtrain.dist import failure
from dtrain.dist.activity import Activity
from dtrain.dist.claim import Claim
from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import AgreedFailure, LaunchError
from dtrain.dist.failure import end_job_on_failure
from dtrain.dist.single import SingleCommunicator
from dtrain.dist.threads import JobAborted, run_ranks

Mpirun = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the list that `say` appends to, with claims in a folder of their own and no grace."""
    monkeypatch.setattr(failure, "GRACE_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("claims")))
    return []


def failing(said: list[str], errors: dict[int, BaseException]) -> Callable[[Communicator], None]:
    def body(communicator: Communicator) -> None:
        activity = Activity()
        with end_job_on_failure(communicator, activity, said.append):
            activity.iteration, activity.doing = 7, "computing"
            if communicator.rank in errors:
                raise errors[communicator.rank]
            communicator.barrier()

    return body


@pytest.mark.parametrize(
    ("error", "exit_code", "cause"),
    [
        (LaunchError("bad record"), 3, "bad record"),
        (SystemExit(0), 3, "sys.exit(0) was called"),
        (SystemExit(9), 3, "sys.exit(9) was called"),
        (KeyboardInterrupt(), 130, "interrupted (SIGINT)"),
    ],
)
def test_end_job_on_failure_of_one_rank_says_one_line_and_aborts(
    said: list[str], error: BaseException, exit_code: int, cause: str
) -> None:
    with pytest.raises(JobAborted) as aborted:
        run_ranks(3, failing(said, {1: error}), hosts=["a", "b", "c"])
    assert aborted.value.exit_code == exit_code
    assert said == [f"rank 1 of 3 (b) failed at iteration 7 while computing: {cause}"]


def test_end_job_on_failure_of_all_ranks_says_one_line(said: list[str]) -> None:
    with pytest.raises(JobAborted):
        run_ranks(4, failing(said, {rank: LaunchError("bad") for rank in range(4)}))
    assert len(said) == 1


def test_end_job_on_failure_by_a_bug_says_the_traceback_before_the_line(said: list[str]) -> None:
    with pytest.raises(JobAborted):
        run_ranks(2, failing(said, {0: ZeroDivisionError("oh")}), hosts=["a", "b"])
    traceback, line = said
    assert traceback.startswith("Traceback (most recent call last):")
    assert traceback.endswith("ZeroDivisionError: oh")
    assert line.startswith(
        "rank 0 of 2 (a) failed at iteration 7 while computing: ZeroDivisionError: oh (test_fail"
    )


def test_end_job_on_failure_aborts_though_the_line_cannot_be_said(said: list[str]) -> None:
    def body(communicator: Communicator) -> None:
        def say(line: str) -> None:
            raise OSError(f"no place for {line}")

        with end_job_on_failure(communicator, Activity(), say):
            if communicator.rank == 0:
                raise LaunchError("x")
            communicator.barrier()

    with pytest.raises(JobAborted):
        run_ranks(2, body)


def test_end_job_on_failure_that_cannot_be_said_leaves_the_claim_to_others(tmp_path: Path) -> None:
    claim = Claim("job", tmp_path)

    def say(line: str) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        failure._report_or_give_back(
            SingleCommunicator(), Activity(), ZeroDivisionError("x"), take(claim), say
        )
    assert claim.take()


def take(claim: Claim) -> Claim:
    assert claim.take()
    return claim


def test_end_job_on_failure_of_an_agreed_failure_lets_rank_0_speak_and_passes_it_on(said: list[str]) -> None:
    def body(communicator: Communicator) -> None:
        with end_job_on_failure(communicator, Activity(), said.append):
            raise AgreedFailure("one", "two", exit_code=2)

    with pytest.raises(AgreedFailure) as passed:
        run_ranks(3, body)
    assert said == ["one", "two"]
    assert passed.value.exit_code == 2


def test_end_job_on_failure_of_an_agreed_failure_that_cannot_be_said_leaves_nobody_waiting() -> None:
    left: list[int] = []

    def body(communicator: Communicator) -> None:
        def say(line: str) -> None:
            raise OSError(f"no place for {line}")

        try:
            with end_job_on_failure(communicator, Activity(), say):
                raise AgreedFailure("one")
        except (AgreedFailure, OSError):
            left.append(communicator.rank)

    run_ranks(3, body)
    assert sorted(left) == [0, 1, 2]


def test_end_job_on_failure_without_failure_says_nothing(said: list[str]) -> None:
    run_ranks(3, failing(said, {}))
    assert said == []


def test_end_job_on_failure_on_one_rank_passes_the_exception(said: list[str]) -> None:
    with pytest.raises(LaunchError, match="^bad$"):
        failing(said, {0: LaunchError("bad")})(SingleCommunicator())
    assert said == []


PROGRAM = """
import os, signal, sys
import numpy as np
from dtrain.dist.activity import Activity
from dtrain.dist.create import create_communicator
from dtrain.dist.errors import AgreedFailure, LaunchError
from dtrain.dist.failure import end_job_on_failure
from dtrain.dist.guard import together

def fail():
    raise LaunchError("a.txt: must exist")

communicator = create_communicator(None, os.environ)
activity = Activity()
array = np.zeros(10, np.float32)
try:
    with end_job_on_failure(communicator, activity):
        for activity.iteration in range(1000000):
            activity.doing = "summing"
            communicator.all_reduce(array)
            if activity.iteration == 5 and communicator.rank in RANKS:
                open(os.environ["FAILED_AT"], "w").close()
                ACTION
            if AGREED and activity.iteration == 5:
                together(communicator, fail if communicator.rank in RANKS else int, (LaunchError,))
except AgreedFailure as failure:
    sys.exit(failure.exit_code)
"""
FAILING_LINE = PROGRAM[: PROGRAM.index("ACTION")].count("\n") + 1


def fail_under_mpirun(
    mpirun: Mpirun, folder: Path, action: str, ranks: tuple[int, ...] = (1,), agreed: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run PROGRAM on 3 ranks, of which `ranks` do `action` in iteration 5; check that it ends 10 s later."""
    program = PROGRAM.replace("RANKS", repr(ranks)).replace("ACTION", action).replace("AGREED", repr(agreed))
    failed_at = folder / "failed_at"
    result = mpirun(3, ["-c", program], env={"TMPDIR": str(folder), "FAILED_AT": str(failed_at)})
    assert time.time() - failed_at.stat().st_mtime < 10
    return result


def lines_with(text: str, output: str) -> list[str]:
    """Return the lines that hold `text`, without the zero byte that ends a notice of Open MPI before them."""
    return [line.lstrip("\0") for line in output.splitlines() if text in line]


@pytest.mark.parametrize(
    ("action", "cause", "exit_code"),
    [
        ("raise LaunchError('x.prototxt: bad')", "x.prototxt: bad", 3),
        ("sys.exit(0)", "sys.exit(0) was called", 3),
        ("raise KeyboardInterrupt", "interrupted (SIGINT)", 130),
        ("1 / 0", f"ZeroDivisionError: division by zero (<string>:{FAILING_LINE})", 3),
    ],
)
def test_one_rank_failing_under_mpirun_ends_the_job_with_one_line(
    mpirun: Mpirun, tmp_path: Path, action: str, cause: str, exit_code: int
) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, action)
    lines = lines_with(" failed ", result.stderr)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rank 1 of 3 (")
    assert lines[0].endswith(f") failed at iteration 5 while summing: {cause}")
    assert result.returncode == exit_code


def test_two_ranks_failing_under_mpirun_say_one_line(mpirun: Mpirun, tmp_path: Path) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "raise LaunchError('bad')", ranks=(0, 2))
    assert result.stderr.count("failed at iteration 5 while summing: bad") == 1, result.stderr


def test_rank_killed_under_mpirun_ends_the_job_and_is_named_by_mpirun(mpirun: Mpirun, tmp_path: Path) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert "rank 1" in result.stderr
    assert "signal 9" in result.stderr
    assert result.returncode != 0


@pytest.mark.parametrize(
    ("ranks", "start"), [((0, 1, 2), "a.txt"), ((1,), "rank 1 (")], ids=["all ranks", "one rank"]
)
def test_agreed_failure_under_mpirun_is_printed_once_and_exits_in_order(
    mpirun: Mpirun, tmp_path: Path, ranks: tuple[int, ...], start: str
) -> None:
    result = fail_under_mpirun(mpirun, tmp_path, "pass", ranks=ranks, agreed=True)
    lines = lines_with("a.txt: must exist", result.stderr)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith(start)
    assert "Traceback" not in result.stderr
    assert result.returncode == (2 if len(ranks) == 3 else 3)
