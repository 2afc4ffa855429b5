"""The values that travel with the gradients: each rank adds its own, and every rank sees the sums.

So all ranks learn at the same iteration what any of them has to say, without a call of its own for it.
"""

from __future__ import annotations

from enum import IntEnum


class Extra(IntEnum):
    """The place of each value before the diffs of an arena."""

    STOP = 0  # how many ranks were asked to stop
    SNAPSHOT = 1  # how many were asked for a snapshot
    NON_FINITE = 2  # how many have a loss that is infinite or not a number
    BUSY_S = 3  # seconds in which a rank did not wait for others, summed over all ranks


NUM_EXTRA = len(Extra)
