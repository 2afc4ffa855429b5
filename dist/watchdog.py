"""When a rank that is alive counts as lost: stopped, doing nothing new, or waiting for others for too long.

In the flow prototxt → graph → net → solver → communicator → snapshot the supervisor (supervisor.py) asks this twice a
second. Slow is not stuck: what counts is that nothing at all changes, measured by what the rank took before.
No clock of its own, no process: times and readings are given.
"""

from __future__ import annotations

from dtrain.dist.ending import Ending
from dtrain.dist.mirror import Reading

START_S = 600.0  # up to the end of the first iteration, and for what SLOW_WORDS begin
TRAINING_S = 60.0  # at least, afterwards
NUM_ITERATIONS = 20  # afterwards: as long as so many of the longest iterations
WAITING_FACTOR = 2  # in a collective call another rank may be in one of the above
SLOW_WORDS = ("building", "loading", "reading", "restoring", "writing")  # files and whole nets, in one step
STOPPED_S = 10.0
GAP_S = 5.0  # if looks are further apart, the supervisor did not run itself

STOPPED_STATE = "T"  # as in /proc/PID/stat; "t" is a rank under a debugger
TRACED_STATE = "t"

_HINT = "dtrain train --timeout SECONDS sets how long that may last"


class Watchdog:
    """Judges one rank by looks at it, each a reading of its mirror at a time of one monotonic clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._looked = now
        self._changed = now
        self._reading = Reading()
        self._iteration_began = now
        self._num_iterations = 0  # ended, in this process
        self._longest_s = 0.0  # of the iterations after the first, which compiles and warms up
        self._stopped_since: float | None = None

    def look(self, now: float, reading: Reading, state: str) -> Ending | None:
        """Return why the rank must be ended now; None: let it work.

        Arguments:
            state: the letter that Linux gives for the state of its process.
        """
        since, self._looked = now - self._looked, now
        if since > GAP_S:  # suspended with the rank, or starved: that is not the rank's time
            self._leave_out(since)
        elif state in (STOPPED_STATE, TRACED_STATE):
            self._changed += since
            self._iteration_began += since
        if state != STOPPED_STATE:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = now
        self._note(now, reading)
        return self._verdict(now)

    def timeout_s(self) -> float | None:
        """Return how long nothing may change now, in seconds; None: for ever."""
        by_user = self._reading.timeout_s
        factor = WAITING_FACTOR if self._reading.collective else 1
        if by_user is not None:
            return factor * by_user or None
        outside = max(TRAINING_S, NUM_ITERATIONS * self._longest_s)
        if (
            self._num_iterations == 0
            or self._reading.collective
            or self._reading.doing.startswith(SLOW_WORDS)
        ):
            outside = max(START_S, outside)
        return factor * outside

    def _leave_out(self, seconds: float) -> None:
        self._changed += seconds
        self._iteration_began += seconds
        if self._stopped_since is not None:
            self._stopped_since += seconds

    def _note(self, now: float, reading: Reading) -> None:
        if reading.changes != self._reading.changes:
            self._changed = now
        if reading.iteration != self._reading.iteration:
            if self._reading.iteration is not None:
                if self._num_iterations:
                    self._longest_s = max(self._longest_s, now - self._iteration_began)
                self._num_iterations += 1
            self._iteration_began = now
        self._reading = reading

    def _verdict(self, now: float) -> Ending | None:
        if self._stopped_since is not None and now - self._stopped_since >= STOPPED_S:
            return Ending(
                f"was stopped for {STOPPED_S:g} s (SIGSTOP or its like)", "the others cannot wait for it"
            )
        timeout_s, unchanged_s = self.timeout_s(), now - self._changed
        if timeout_s is None or unchanged_s <= timeout_s:
            return None
        if self._reading.collective:
            return Ending(f"waited {unchanged_s:.0f} s in {self._reading.collective} for other ranks", _HINT)
        return Ending(f"did nothing new for {unchanged_s:.0f} s", _HINT)
