"""What signals do to a training run: stop it with a snapshot, snapshot and go on, or nothing.

Stands beside the flow prototxt → graph → net → solver → communicator → snapshot: a handler only leaves a
request with the solver, which acts on it when all ranks are at the end of an iteration. Follows caffe's
signal_handler.cpp.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from dtrain.dist.supervisor import watched

EFFECTS = ("stop", "snapshot", "none")
ECHO_S = 5.0  # a busy host may take its time to pass a signal on


class Requests(Protocol):
    """What a handler asks of a solver; both are safe to call at any moment."""

    def request_stop(self) -> None:
        """Ask to stop at the end of this iteration."""

    def request_snapshot(self) -> None:
        """Ask for a snapshot at the end of this iteration."""


def signal_effects(sigint_effect: str, sighup_effect: str) -> dict[signal.Signals, str]:
    """Return the effect of each signal: SIGINT's and SIGHUP's as the user says, SIGTERM and SIGUSR1 stop.

    SIGUSR1 is for jobs under mpirun, which passes it on to all ranks; after a SIGINT or SIGTERM of its own it
    leaves them a fifth of a second.
    """
    return {
        signal.SIGINT: sigint_effect,
        signal.SIGHUP: sighup_effect,
        signal.SIGTERM: "stop",
        signal.SIGUSR1: "stop",
    }


@contextmanager
def signals_handled(solver: Requests, effects: Mapping[signal.Signals, str]) -> Iterator[None]:
    """Let signals have their effects on `solver` inside a with block.

    A signal that stops has its earlier effect the second time: a second Ctrl-C ends the process at once. A rank
    under a supervisor may get one signal twice, from a launcher that signals all processes (Slurm's) and passed
    on: within ECHO_S it is one, and afterwards what was heard is ignored, since the rank is leaving.

    Arguments:
        solver: whom to ask.
        effects: signal → "stop", "snapshot" or "none".
    """
    earlier = {number: signal.getsignal(number) or signal.SIG_DFL for number in effects}
    heard_at: dict[int, float] = {}

    def handle(number: int, _frame: FrameType | None) -> None:
        effect, now = effects[signal.Signals(number)], time.monotonic()
        is_second = number in heard_at
        if is_second and now - heard_at[number] < ECHO_S:
            return
        if watched():
            heard_at[number] = now
        if effect == "stop" and (is_second or not watched()):
            signal.signal(number, earlier[signal.Signals(number)])
        if effect == "stop" and is_second:
            os.kill(os.getpid(), number)
        elif effect == "stop":
            solver.request_stop()
        elif effect == "snapshot":
            solver.request_snapshot()

    try:
        for number in effects:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in earlier.items():
            # The echo of a signal that was heard may come after the run has stopped for it.
            signal.signal(number, signal.SIG_IGN if number in heard_at else handler)
