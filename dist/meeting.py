"""The meeting point of ranks that are threads of one process; what threads.py builds its collective calls on.

In the flow prototxt → graph → net → solver → communicator → snapshot it stands in for the network in tests.
Unlike a network it notices when ranks make different calls or end early, and says so instead of waiting for
ever.
"""

from __future__ import annotations

import threading
from typing import Any

from dtrain.dist.errors import ClusterError


class Meeting:
    """Let `num_ranks` threads swap values, again and again."""

    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self._changed = threading.Condition()
        self._arrived: dict[int, tuple[str, Any]] = {}
        self._values: list[Any] = []
        self._num_held = 0
        self._ended: set[int] = set()
        self._broken: str | None = None

    def swap(self, rank: int, call: str, value: Any) -> list[Any]:
        """Wait until all ranks are here; return their values in rank order.

        Arguments:
            call: what this rank is calling, with its arguments; it must be the same on all ranks.

        Raises:
            ClusterError: ranks called different things, or a rank ended, aborted or failed.
        """
        with self._changed:
            if self._ended:
                self._break(f"rank {min(self._ended)} has ended, rank {rank} calls {call}")
            this_meeting = self._num_held
            self._arrived[rank] = (call, value)
            if len(self._arrived) == self.num_ranks:
                self._hold()
            self._changed.wait_for(lambda: self._num_held > this_meeting or self._broken is not None)
            if self._num_held == this_meeting:
                raise ClusterError(str(self._broken))
            # Safe until this rank arrives again: the next meeting cannot be held without it.
            return self._values

    def end(self, rank: int) -> None:
        """Note that `rank` will come no more; whoever waits for it is released with a ClusterError."""
        with self._changed:
            self._ended.add(rank)
            if self._arrived:
                waiting, (call, _) = min(self._arrived.items())
                self._break(f"rank {rank} has ended, rank {waiting} calls {call}")

    def break_up(self, reason: str) -> None:
        """Release all who wait, and all who come later, with a ClusterError; the first reason counts."""
        with self._changed:
            self._break(reason)

    def state(self) -> str:
        """Return what each waiting rank waits in, for a message about ranks that did not end."""
        with self._changed:
            waiting = [f"rank {rank} waits in {call}" for rank, (call, _) in sorted(self._arrived.items())]
            return "; ".join(waiting) or "no rank waits"

    def _break(self, reason: str) -> None:
        self._broken = self._broken or reason
        self._changed.notify_all()

    def _hold(self) -> None:
        calls = {rank: call for rank, (call, _) in sorted(self._arrived.items())}
        if self._broken is None and len(set(calls.values())) > 1:
            listed = ", ".join(f"rank {rank} calls {call}" for rank, call in calls.items())
            self._broken = f"ranks disagree: {listed}"
        if self._broken is None:
            self._values = [self._arrived[rank][1] for rank in range(self.num_ranks)]
            self._arrived = {}
            self._num_held += 1
        self._changed.notify_all()
