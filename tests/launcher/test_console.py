"""Lines and a status line, told apart on a terminal of the test's own (a pty)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest

from dtrain.launcher.console import Console
from dtrain.launcher.terminal import Terminal

ERASE = "\r\x1b[K"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Screen:
    """A terminal, 20 columns wide, and what was written to it."""

    def __init__(self) -> None:
        self._reader, self._writer = os.openpty()
        os.set_blocking(self._reader, False)
        self.terminal = Terminal(os.ttyname(self._writer))
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))

    def text(self) -> str:
        try:
            return os.read(self._reader, 1 << 16).decode()
        except BlockingIOError:
            return ""

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@pytest.fixture
def screen() -> Iterator[Screen]:
    screen = Screen()
    yield screen
    screen.close()


def test_console_without_terminal_writes_lines_only() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.set_status("status")
    console.write_line("line")
    console.clear_status()
    assert stream.getvalue() == "line\n"
    assert not console.shows_status


def test_console_with_terminal_shows_status_there(screen: Screen) -> None:
    stream = io.StringIO()
    console = Console(stream, screen.terminal)
    console.set_status("status")
    assert console.shows_status
    assert (screen.text(), stream.getvalue()) == (f"{ERASE}status", "")


def test_console_status_too_long_is_cut_before_the_last_column(screen: Screen) -> None:
    Console(io.StringIO(), screen.terminal).set_status("0123456789" * 3)
    assert screen.text() == f"{ERASE}0123456789012345678"


def test_console_line_takes_the_status_away_first(screen: Screen) -> None:
    stream = io.StringIO()
    console = Console(stream, screen.terminal)
    console.set_status("status")
    screen.text()
    console.write_line("line")
    assert (screen.text(), stream.getvalue()) == (ERASE, "line\n")


def test_console_status_right_after_a_line_waits_for_its_arrival(screen: Screen) -> None:
    clock = Clock()
    console = Console(io.StringIO(), screen.terminal, clock)
    console.write_line("line")
    console.set_status("early")
    assert screen.text() == ""
    clock.now += 0.06
    console.set_status("late")
    assert screen.text() == f"{ERASE}late"


def test_console_clear_status_erases_once(screen: Screen) -> None:
    console = Console(io.StringIO(), screen.terminal)
    console.set_status("status")
    screen.text()
    console.clear_status()
    console.clear_status()
    assert screen.text() == ERASE
