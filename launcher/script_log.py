"""The log of scripts: pycaffe's init_log and log, and what scripts see that set nothing up.

Beside launcher/log.py, which does the same for the command line. pycaffe shows its log on stderr, from the level in
GLOG_minloglevel on, and so does dtrain's face (dtrain/__init__.py), unless the script has given logging a handler
of its own.
"""

from __future__ import annotations

import logging
import os
import sys

from dtrain.dist.launch_environment import launched_rank
from dtrain.launcher.log import GlogFormatter

_LEVEL_VARIABLE = "GLOG_minloglevel"
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)  # by glog's numbers
_FACE = logging.getLogger("dtrain")


class _StderrHandler(logging.Handler):
    """Writes to the stderr of the moment, unless the root logger has handlers, which show the record then."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            sys.stderr.write(f"{self.format(record)}\n")


def init_log(level: int = 0, stderr: bool = False) -> None:
    """Show the log on stderr from `level` on: 0 all, 1 warnings, 2 errors, 3 nothing but what ends a program.

    stderr: taken for pycaffe's sake; there is no other place that the log could go to. Of several ranks the
    first alone shows more than warnings.
    """
    rank = launched_rank(os.environ) or 0
    least = _LEVELS[min(max(int(level), 0), len(_LEVELS) - 1)]
    _FACE.setLevel(least if rank == 0 else max(least, logging.WARNING))
    if not any(isinstance(handler, _StderrHandler) for handler in _FACE.handlers):
        handler = _StderrHandler()
        handler.setFormatter(GlogFormatter("" if rank == 0 else f"rank {rank}"))
        _FACE.addHandler(handler)


def show_log() -> None:
    """Show the log as pycaffe does by itself, once; nothing if the script has set up logging its own way."""
    if _FACE.handlers or _FACE.level != logging.NOTSET or logging.getLogger().handlers:
        return
    level = os.environ.get(_LEVEL_VARIABLE, "")
    init_log(int(level) if level.isdigit() else 0)


def log(message: str) -> None:
    """Write a line into the log."""
    _FACE.info("%s", message, stacklevel=2)
