"""Write snapshots in the background while training goes on.

Between solver and snapshot in the flow prototxt → graph → net → solver → communicator → snapshot: the
solver copies what a snapshot holds and hands the writing of the copy to a BackgroundWriter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

log = logging.getLogger(__name__)


class BackgroundWriter:
    """Run one action at a time in one thread; what goes wrong there is raised by the next call here.

    As a context manager it waits at the end for the action under way.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="snapshot")
        self._pending: Future[object] | None = None

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except Exception as failure:
            if error is None:
                raise
            # The exception under way says why training ends; it must not be hidden by this one.
            log.error("%s", failure)
        finally:
            self._thread.shutdown()

    def submit(self, action: Callable[[], object]) -> None:
        """Start `action` in the thread, after the one before is done; raises that one's exception."""
        self.finish()
        self._pending = self._thread.submit(action)

    def poll(self) -> None:
        """Raise the exception of the action under way if it has failed by now, once; wait for nothing."""
        if self._pending is not None and self._pending.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the action under way is done; raises its exception, once."""
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()
