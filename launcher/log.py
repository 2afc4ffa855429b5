"""The log in glog's form, which Caffe's log parsers read: ``I1120 13:19:08.123456 12345 solver.py:239] …``.

Stands beside the flow prototxt → graph → net → solver → communicator → snapshot: every stage logs by the
standard library's logging, and this module decides what of it is shown and how.
"""

from __future__ import annotations

import logging
from datetime import datetime

from dtrain.launcher.console import Console

_LOGGER_OF_WARNINGS = "py.warnings"


class GlogFormatter(logging.Formatter):
    """Format records as glog does: ``Lmmdd hh:mm:ss.uuuuuu pid file:line] message``.

    Arguments:
        speaker: who speaks, put in front of the message; "" for rank 0.
    """

    def __init__(self, speaker: str = "") -> None:
        super().__init__()
        self._speaker = f"{speaker}: " if speaker else ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line; a traceback follows on lines of its own."""
        time = datetime.fromtimestamp(record.created).strftime("%m%d %H:%M:%S.%f")
        place = f"{record.filename}:{record.lineno}"
        text = record.getMessage()
        if record.name == _LOGGER_OF_WARNINGS:  # Python puts the line of source below
            text = " ".join(text.split())
        message = f"{self._speaker}{text}"
        line = f"{glog_letter(record.levelno)}{time} {record.process:5d} {place}] {message}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class ConsoleHandler(logging.Handler):
    """Send records to the console, above its status line."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._console.write_line(self.format(record))


def glog_letter(level: int) -> str:
    """Return glog's letter of a level of logging: I, W, E or F."""
    names = ((logging.CRITICAL, "F"), (logging.ERROR, "E"), (logging.WARNING, "W"))
    return next((letter for least, letter in names if level >= least), "I")


def install_log(console: Console, rank: int, host: str) -> None:
    """Let logging write to the console: rank 0 from INFO, others from WARNING with rank and host."""
    handler = ConsoleHandler(console)
    handler.setFormatter(GlogFormatter("" if rank == 0 else f"rank {rank} ({host})"))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logging.captureWarnings(True)
