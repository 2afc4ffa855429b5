"""Let an exception that a script catches nowhere end all ranks, not the one that raised it alone.

The others would wait for it in their next collective call for ever. The command line has dist/failure.py for that;
a script has no frame around it, so that Python's last hook must do.
"""

from __future__ import annotations

import sys
from types import TracebackType

from dtrain.dist.communicator import Communicator
from dtrain.dist.errors import exit_code_alone


def end_all_when_uncaught(communicator: Communicator) -> None:
    """Abort the job of `communicator` once an uncaught exception has been printed; of several calls the first
    counts. Nothing changes on a job of one rank. Not collective.
    """
    if communicator.world_size > 1 and not isinstance(sys.excepthook, _PrintAndAbort):
        sys.excepthook = _PrintAndAbort(communicator)


class _PrintAndAbort:
    def __init__(self, communicator: Communicator) -> None:
        self._communicator = communicator
        self._print = sys.excepthook

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        try:
            self._print(kind, error, trace)
        finally:
            self._communicator.abort(exit_code_alone(error))
