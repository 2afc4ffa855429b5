"""Waiting for another rank without keeping the core from those that have work to do.

In the flow prototxt → graph → net → solver → communicator → snapshot communicators that look again and again
whether something has come go on and pause here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator

# What an exchange does on this rank, up to its end. It yields where it cannot go on without other ranks:
# whether it has moved on since it last did.
Steps = Generator[bool, None, None]

NUM_SPINS = 2  # looks without a pause; each takes a microsecond or more
# Then the core is offered to others before each look: to ranks beyond the number of cores, the reader's threads. That
# takes half a microsecond where nobody wants it.
NUM_YIELDS = 1000
NAP_S = 1e-4  # then something slow is waited for, and a tenth of a millisecond more does not show


def nothing() -> Steps:
    """Do nothing, and wait for nobody."""
    yield from ()


def until(has_come: Callable[[], bool]) -> Steps:
    """Yield as long as `has_come` says no."""
    moved = True
    while not has_come():
        yield moved
        moved = False


def pause(num_looks: int) -> None:
    """Wait after having looked in vain `num_looks` times: not at all, as long as others need, or a nap."""
    if num_looks <= NUM_SPINS:
        return
    if num_looks <= NUM_SPINS + NUM_YIELDS:
        os.sched_yield()  # time.sleep(0) takes a tenth of a millisecond
    else:
        time.sleep(NAP_S)


def wait_until(moves_on: Callable[[], bool], is_done: Callable[[], bool]) -> None:
    """Call `moves_on` until `is_done`, with pauses as long as it says that nothing moves."""
    num_looks = 0
    while not is_done():
        num_looks = 0 if moves_on() else num_looks + 1
        pause(num_looks)
