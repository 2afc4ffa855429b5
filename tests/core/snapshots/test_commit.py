"""Files appear whole or not at all, whatever the disk does."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.snapshots.checksum import find_damage
from dtrain.core.snapshots.commit import Commit, commit_file

OLD = b"what was there before"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file that exists before a commit."""
    path = tmp_path / "a.caffemodel"
    path.write_bytes(OLD)
    return path


def assert_only_old(old: Path) -> None:
    assert list(old.parent.iterdir()) == [old]
    assert old.read_bytes() == OLD


def fail_with(monkeypatch: pytest.MonkeyPatch, call: str, code: int, after: int = 0) -> None:
    """Let the `after` first calls of os.`call` pass and all later ones fail."""
    real, calls = getattr(os, call), []

    def failing(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) > after:
            raise OSError(code, os.strerror(code))
        return real(*arguments)

    monkeypatch.setattr(os, call, failing)


def test_commit_file_writes_parts_in_order_and_replaces(old: Path) -> None:
    commit_file(old, [b"head", np.array([1.0], np.float32), b"tail"])
    assert old.read_bytes() == b"head\x00\x00\x80\x3ftail"
    assert list(old.parent.iterdir()) == [old]


def test_commit_file_makes_missing_folders(tmp_path: Path) -> None:
    commit_file(tmp_path / "a" / "b" / "c", [b"x"])
    assert (tmp_path / "a" / "b" / "c").read_bytes() == b"x"


def test_commit_file_disk_that_takes_few_bytes_at_a_time_gets_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, piece: real(descriptor, piece[:7]))
    commit_file(tmp_path / "x", [bytes(range(100)), b"end"])
    assert (tmp_path / "x").read_bytes() == bytes(range(100)) + b"end"


def test_commit_file_obeys_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        commit_file(tmp_path / "x", [b"x"])
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o640


def test_commit_file_stale_temporary_of_the_same_process_number_is_replaced(tmp_path: Path) -> None:
    (tmp_path / f"x.{os.getpid()}.partial").write_bytes(b"left by a killed process")
    commit_file(tmp_path / "x", [b"new"])
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x", b"new")]


def test_commit_add_record_describes_the_file(tmp_path: Path) -> None:
    with Commit(0) as commit:
        record = commit.add(tmp_path / "x", [b"abc", np.zeros(5)])
    assert record.num_bytes == 43
    assert find_damage(memoryview((tmp_path / "x").read_bytes()), record) is None


def test_commit_shows_no_file_before_the_block_ends(tmp_path: Path) -> None:
    with Commit(0) as commit:
        commit.add(tmp_path / "x", [b"1"])
        commit.add(tmp_path / "y", [b"2"])
        assert not (tmp_path / "x").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "y"]


def test_commit_block_that_raises_changes_nothing(old: Path) -> None:
    def interrupted() -> None:
        with Commit(0) as commit:
            commit.add(old, [b"new"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert_only_old(old)


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_commit_full_disk_changes_nothing_and_says_how_much_was_needed(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    fail_with(monkeypatch, call, code)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 12_340_000}))
    with pytest.raises(UserError) as error:
        commit_file(old, [np.zeros(600_000, np.float32)])
    assert str(error.value) == (
        f"cannot write snapshot {old}: {os.strerror(code)}; 2.4 MB were needed, 12.3 MB are free; "
        "earlier snapshots are intact"
    )
    monkeypatch.undo()
    assert_only_old(old)


def test_commit_second_file_that_fails_takes_the_first_with_it(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, "write", errno.ENOSPC, after=1)

    def write_two() -> None:
        with Commit(0) as commit:
            commit.add(old, [b"new"])
            commit.add(old.with_name("b.solverstate"), [b"new"])

    with pytest.raises(UserError, match="cannot write snapshot .*/b.solverstate: No space left"):
        write_two()
    monkeypatch.undo()
    assert_only_old(old)


def test_commit_refused_rename_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, "replace", errno.EACCES)
    with pytest.raises(
        UserError, match="Permission denied; snapshot_prefix must begin with a folder where files"
    ):
        commit_file(old, [b"new"])
    assert_only_old(old)


def test_commit_folder_that_is_a_file_is_explained(old: Path) -> None:
    with pytest.raises(
        UserError, match="cannot write snapshot .*/a.caffemodel/x: File exists; snapshot_prefix"
    ):
        commit_file(old / "x", [b"new"])
    assert_only_old(old)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_commit_file_system_that_cannot_sync_folders_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail_with(monkeypatch, "fsync", code, after=1)
    commit_file(tmp_path / "x", [b"new"])
    assert (tmp_path / "x").read_bytes() == b"new"


def test_commit_folder_that_fails_to_sync_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, "fsync", errno.EIO, after=1)
    with pytest.raises(UserError, match="cannot write snapshot .*/x: Input/output error"):
        commit_file(tmp_path / "x", [b"new"])


def test_commit_sweep_removes_only_temporaries_of_the_name(tmp_path: Path) -> None:
    for name in (
        "net_iter_5.caffemodel.77.partial",
        "net_iter_5.caffemodel",
        "other_iter_5.caffemodel.77.partial",
    ):
        (tmp_path / name).touch()
    Commit(0).sweep(tmp_path, "net_iter_")
    Commit(0).sweep(tmp_path / "missing", "net_iter_")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "net_iter_5.caffemodel",
        "other_iter_5.caffemodel.77.partial",
    ]


def test_commit_real_limit_on_file_size_changes_nothing(
    old: Path, python_environment: dict[str, str]
) -> None:
    script = (
        "import sys, numpy\n"
        "from pathlib import Path\n"
        "from dtrain.core.errors import UserError\n"
        "from dtrain.core.snapshots.commit import commit_file\n"
        "try:\n"
        "    commit_file(Path(sys.argv[1]), [numpy.ones(100_000)])\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(old)],
        env={**python_environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert result.stdout.startswith(f"cannot write snapshot {old}: File too large; 0.8 MB were needed, "), (
        result
    )
    assert result.stdout.endswith("; earlier snapshots are intact\n")
    assert_only_old(old)
