"""Turn what users' own code raises into a sentence, with its traceback in the log."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
from types import TracebackType

from dtrain.core.errors import UserError

log = logging.getLogger(__name__)

_IMPORT_FRAMES = ("<frozen importlib", os.path.dirname(importlib.__file__))


class UsersCode:
    """Around a call into users' code in a with block: raises a UserError in place of any exception.

    The error says what was done, what was raised and at which line of the user's; its __cause__ is the exception
    itself, and the traceback from the user's code on goes to the log.

    Arguments:
        action: such as "Twice.forward".
        owner: the user's class, whose file is named where the exception passed through it.
        hint: what to add to the sentence.
    """

    # No contextlib.contextmanager: that lets a StopIteration, which data layers do raise, pass as it is.

    def __init__(self, action: str, owner: type | None = None, hint: str = "") -> None:
        self._action = action
        self._owner = owner
        self._hint = hint

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception):
            return
        inner = _from_users_code(trace)
        log.error("%s failed:", self._action, exc_info=(type(error), error, inner))
        said = " ".join(str(error).split())
        what = f"{type(error).__name__}: {said}" if said else type(error).__name__
        place = _last_place(inner, self._owner)
        raise UserError(f"{self._action} raised {what}{place}{self._hint}") from error


def _from_users_code(trace: TracebackType | None) -> TracebackType | None:
    """Return `trace` without its first frames: the with block's, and those of Python's import."""
    inner = trace.tb_next if trace is not None else None
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(_IMPORT_FRAMES):
        inner = inner.tb_next
    return inner


def _last_place(trace: TracebackType | None, owner: type | None) -> str:
    """Return " (file:line)": the last line of the user's own file that was left, or the last line of all."""
    frames = traceback.extract_tb(trace)
    module = sys.modules.get(owner.__module__) if owner is not None else None
    own = [
        frame for frame in frames if module is not None and frame.filename == getattr(module, "__file__", "")
    ]
    last = (own or frames)[-1:]
    return f" ({last[0].filename}:{last[0].lineno})" if last else ""
