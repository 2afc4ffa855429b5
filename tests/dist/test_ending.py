from __future__ import annotations

import signal
from pathlib import Path

import pytest

from dtrain.dist.ending import (
    Ending,
    Place,
    cause_of,
    count_killed_for_memory,
    ending_of,
    failure_line,
    signal_name,
)
from dtrain.dist.errors import ClusterError, LaunchError

GIB = 2**30
KILLED = "was killed by SIGKILL"


def test_ending_line_names_rank_host_activity_and_hint() -> None:
    place = Place(2, 4, "node1")
    activity = 'at iteration 120 while computing layer "conv1"'
    assert Ending("was lost", "do it again").line(place, activity) == (
        'rank 2 of 4 (node1) was lost at iteration 120 while computing layer "conv1"; do it again'
    )
    assert Ending("was lost").line(Place(2, None, "node1"), "x") == "rank 2 (node1) was lost x"


@pytest.mark.parametrize(
    ("status", "num_killed", "what", "hint"),
    [
        (
            signal.SIGKILL,
            0,
            KILLED,
            "it had used up to 2,048 MiB of memory; the kernel's out-of-memory killer",
        ),
        (
            signal.SIGKILL,
            1,
            KILLED,
            "it had used up to 2,048 MiB of memory, and the kernel's out-of-memory killer was",
        ),
        (signal.SIGSEGV | 0x80, 0, "was killed by SIGSEGV", ""),  # 0x80: with a core file
        (3 << 8, 0, "ended with exit code 3", "something it called"),
        (0, 0, "ended with exit code 0", "something it called"),
    ],
)
def test_ending_of_a_wait_status_names_signal_or_exit_code(
    status: int, num_killed: int, what: str, hint: str
) -> None:
    ending = ending_of(status, 2 * GIB, num_killed)
    assert ending.what == what
    assert ending.hint.startswith(hint)
    assert bool(ending.hint) == bool(hint)


def test_signal_name_of_one_without_a_name_is_its_number() -> None:
    assert signal_name(9) == "SIGKILL"
    assert signal_name(40) == "signal 40"


@pytest.mark.parametrize(
    ("text", "count"),
    [("nr_free_pages 5\noom_kill 12\noom_kill_x 3\n", 12), ("nr_free_pages 5\n", 0), (None, 0)],
    ids=["counted", "an old kernel", "no file"],
)
def test_count_killed_for_memory_of_vmstat(tmp_path: Path, text: str | None, count: int) -> None:
    path = tmp_path / "vmstat"
    if text is not None:
        path.write_text(text)
    assert count_killed_for_memory(path) == count


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_failure_line_names_rank_host_activity_and_cause() -> None:
    line = failure_line(
        Place(3, 8, "node7"), "at iteration 120 while reading a batch", LaunchError("disk gone")
    )
    assert line == "rank 3 of 8 (node7) failed at iteration 120 while reading a batch: disk gone"


CAUSES = [
    (LaunchError("one\ntwo"), "one; two"),
    (ClusterError("lost"), "lost"),
    (SystemExit(3), "sys.exit(3) was called"),
    (SystemExit(), "sys.exit(None) was called"),
    (KeyboardInterrupt(), "interrupted (SIGINT)"),
    (MemoryError(), "MemoryError"),
    (ValueError("bad\nvalue"), "ValueError: bad; value"),
]


@pytest.mark.parametrize(("error", "cause"), CAUSES, ids=repr)
def test_cause_of_an_exception_is_one_line(error: BaseException, cause: str) -> None:
    assert cause_of(error) == cause


def test_cause_of_a_bug_that_was_raised_names_the_place() -> None:
    line = raised.__code__.co_firstlineno + 2
    assert cause_of(raised(ValueError("bad"))) == f"ValueError: bad (test_ending.py:{line})"
    assert cause_of(raised(ClusterError("lost"))) == "lost"
