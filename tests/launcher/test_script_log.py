from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dtrain.launcher import script_log
from dtrain.launcher.script_log import init_log, log, show_log

ROOT = logging.getLogger()
FACE = logging.getLogger("dtrain")
CORE = logging.getLogger("dtrain.core.net.net")


@contextmanager
def untouched_logging() -> Iterator[None]:
    """Run a block as if in a process in which nobody, pytest neither, has set up logging."""
    kept = [(logger, logger.handlers, logger.level) for logger in (ROOT, FACE)]
    ROOT.handlers, FACE.handlers = [], []
    FACE.setLevel(logging.NOTSET)
    try:
        yield
    finally:
        for logger, handlers, level in kept:
            logger.handlers = handlers
            logger.setLevel(level)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    monkeypatch.setattr(script_log, "launched_rank", lambda environment: None)


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the letter and the message of each line on stderr since the last call."""
    lines = capsys.readouterr().err.splitlines()
    return [f"{line[0]} {line.partition('] ')[2]}" for line in lines]


def speak() -> None:
    CORE.info("info")
    CORE.warning("warning")
    CORE.error("error")


@pytest.mark.parametrize(
    ("level", "lines"),
    [
        ("", ["I info", "W warning", "E error"]),
        ("0", ["I info", "W warning", "E error"]),
        ("1", ["W warning", "E error"]),
        ("2", ["E error"]),
        ("3", []),
        ("9", []),
    ],
)
def test_show_log_shows_from_glogs_level_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, level: str, lines: list[str]
) -> None:
    monkeypatch.setenv("GLOG_minloglevel", level)
    with untouched_logging():
        show_log()
        show_log()
        speak()
    assert shown(capsys) == lines


def test_init_log_sets_the_level_anew(capsys: pytest.CaptureFixture[str]) -> None:
    with untouched_logging():
        show_log()
        init_log(2)
        speak()
        assert shown(capsys) == ["E error"]
        init_log(1, True)
        speak()
        assert shown(capsys) == ["W warning", "E error"]
        init_log()
        log("hello %s")
    assert shown(capsys) == ["I hello %s"]


def test_log_names_the_callers_file(capsys: pytest.CaptureFixture[str]) -> None:
    with untouched_logging():
        init_log()
        log("hello")
    assert f" {os.path.basename(__file__)}:" in capsys.readouterr().err


def test_show_log_leaves_a_script_alone_that_has_set_up_logging() -> None:
    with untouched_logging():
        ROOT.addHandler(logging.NullHandler())
        show_log()
        assert not FACE.handlers
        assert FACE.level == logging.NOTSET


def test_show_log_falls_silent_when_a_script_sets_up_logging_later(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with untouched_logging():
        show_log()
        ROOT.addHandler(logging.NullHandler())
        speak()
    assert shown(capsys) == []


def test_init_log_of_a_later_rank_shows_warnings_alone_and_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script_log, "launched_rank", lambda environment: 3)
    with untouched_logging():
        init_log()
        speak()
    assert shown(capsys) == ["W rank 3: warning", "E rank 3: error"]
