"""Finding the terminal: on a pty of the test's own, and in a made-up /proc."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain.launcher.terminal import (
    Terminal,
    find_terminal,
    launchers_above,
    terminal_link,
    terminal_path,
)


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    reader, writer = os.openpty()
    yield reader, writer
    os.close(reader)
    os.close(writer)


def enter_process(proc: Path, pid: int, parent: int, program: str) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "stat").write_text(f"{pid} ({program}) S {parent} {pid} 0")
    (folder / "comm").write_text(f"{program}\n")


def test_terminal_path_of_a_terminal_is_its_device(pty: tuple[int, int]) -> None:
    assert terminal_path(pty[1]) == os.ttyname(pty[1])


def test_terminal_path_of_a_file_is_none(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        assert terminal_path(log.fileno()) is None


def test_terminal_path_of_a_pipe_to_no_launcher_is_none() -> None:
    reader, writer = os.pipe()
    try:
        assert terminal_path(writer) is None
    finally:
        os.close(reader)
        os.close(writer)


def test_launchers_above_a_rank_of_open_mpi_is_prterun(tmp_path: Path) -> None:
    for pid, parent, program in [(1, 0, "init"), (5, 1, "bash"), (7, 5, "prterun"), (9, 7, "python")]:
        enter_process(tmp_path, pid, parent, program)
    assert list(launchers_above(9, tmp_path)) == [7]


def test_launchers_above_a_rank_of_mpich_ends_with_mpiexec(tmp_path: Path) -> None:
    rows = [(5, 1, "bash"), (6, 5, "mpiexec.hydra"), (7, 6, "hydra_pmi_proxy"), (9, 7, "my (odd) name")]
    for pid, parent, program in [(1, 0, "init"), *rows]:
        enter_process(tmp_path, pid, parent, program)
    assert list(launchers_above(9, tmp_path)) == [7, 6]


def test_launchers_above_a_shell_under_mpirun_is_nothing(tmp_path: Path) -> None:
    for pid, parent, program in [(7, 1, "prterun"), (8, 7, "sh"), (9, 8, "python")]:
        enter_process(tmp_path, pid, parent, program)
    assert list(launchers_above(9, tmp_path)) == []


@pytest.mark.parametrize(
    ("target", "is_terminal"), [("/dev/pts/3", True), ("/dev/tty1", True), ("/tmp/log", False)]
)
def test_terminal_link_tells_terminals_from_files(tmp_path: Path, target: str, is_terminal: bool) -> None:
    link = tmp_path / "2"
    link.symlink_to(target)
    assert terminal_link(link) == (target if is_terminal else None)


def test_terminal_link_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert terminal_link(tmp_path / "absent") is None


def test_find_terminal_with_progress_off_is_none(pty: tuple[int, int]) -> None:
    assert find_terminal({"DTRAIN_PROGRESS": "off"}, pty[1]) is None


def test_find_terminal_with_a_path_uses_it(pty: tuple[int, int]) -> None:
    terminal = find_terminal({"DTRAIN_PROGRESS": os.ttyname(pty[1])})
    assert terminal is not None
    terminal.write("hello")
    assert os.read(pty[0], 100) == b"hello"


def test_find_terminal_with_a_path_of_no_terminal_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert find_terminal({"DTRAIN_PROGRESS": str(tmp_path / "file")}) is None


def test_terminal_that_stops_background_writers_is_refused(pty: tuple[int, int]) -> None:
    modes = termios.tcgetattr(pty[1])
    modes[3] |= termios.TOSTOP
    termios.tcsetattr(pty[1], termios.TCSANOW, modes)
    with pytest.raises(OSError, match="background"):
        Terminal(os.ttyname(pty[1]))


def test_terminal_that_takes_no_more_does_not_block(pty: tuple[int, int]) -> None:
    terminal = Terminal(os.ttyname(pty[1]))
    for _ in range(100):
        terminal.write("x" * 10_000)  # nobody reads: a blocking write would wait for ever
    assert len(os.read(pty[0], 1 << 20)) < 1_000_000
