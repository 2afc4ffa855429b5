"""The log's form, against glog's own: Lmmdd hh:mm:ss.uuuuuu pid file:line] message."""

from __future__ import annotations

import io
import logging
import re
import sys
from datetime import datetime

import pytest

from dtrain.launcher.console import Console
from dtrain.launcher.log import GlogFormatter, glog_letter, install_log

GLOG_LINE = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ [^:]+:\d+\] (.*)$", re.MULTILINE)


def make_record(level: int, message: str, error: bool = False) -> logging.LogRecord:
    info = sys.exc_info() if error else None
    record = logging.LogRecord("dtrain.core", level, "/x/solver.py", 239, message, (), info)
    record.created = datetime(2026, 11, 20, 13, 19, 8, 123456).timestamp()
    record.process = 42
    return record


def test_glog_formatter_of_rank_0_is_glogs_line() -> None:
    line = GlogFormatter().format(make_record(logging.INFO, "Iteration 0, lr = 0.01"))
    assert line == "I1120 13:19:08.123456    42 solver.py:239] Iteration 0, lr = 0.01"


def test_glog_formatter_of_another_rank_names_it() -> None:
    line = GlogFormatter("rank 3 (node7)").format(make_record(logging.WARNING, "slow disk"))
    assert line == "W1120 13:19:08.123456    42 solver.py:239] rank 3 (node7): slow disk"


def test_glog_formatter_with_an_exception_appends_its_traceback() -> None:
    try:
        raise KeyError("x")
    except KeyError:
        text = GlogFormatter().format(make_record(logging.ERROR, "oh", error=True))
    first, *rest = text.splitlines()
    assert first.endswith("] oh")
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == "KeyError: 'x'"


def test_glog_formatter_of_a_warning_of_python_is_one_line() -> None:
    record = make_record(logging.WARNING, "/x/sgd.py:18: RuntimeWarning: overflow\n  diff *= rate\n")
    record.name = "py.warnings"
    text = GlogFormatter().format(record)
    assert text.endswith("] /x/sgd.py:18: RuntimeWarning: overflow diff *= rate")


@pytest.mark.parametrize(
    ("level", "letter"),
    [
        (logging.DEBUG, "I"),
        (logging.INFO, "I"),
        (logging.WARNING, "W"),
        (logging.ERROR, "E"),
        (logging.CRITICAL, "F"),
    ],
)
def test_glog_letter_of_each_level(level: int, letter: str) -> None:
    assert glog_letter(level) == letter


@pytest.mark.parametrize(("rank", "messages"), [(0, ["told", "warned"]), (2, ["rank 2 (node1): warned"])])
def test_install_log_by_rank_shows_info_on_rank_0_only(rank: int, messages: list[str]) -> None:
    stream = io.StringIO()
    install_log(Console(stream), rank, "node1")
    logging.getLogger("dtrain.test").info("told")
    logging.getLogger("dtrain.test").warning("warned")
    assert GLOG_LINE.findall(stream.getvalue()) == messages
