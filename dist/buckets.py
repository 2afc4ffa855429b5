"""Which gradients are reduced together: the plan of buckets, a pure function of sizes.

In the flow prototxt → graph → net → solver → communicator → snapshot the solver's gradient exchange makes the
plan once, and the simulation of larger jobs makes the same one.
"""

from __future__ import annotations

from collections.abc import Sequence

# The first bucket is small, so that the first reduction starts early; it waits for nothing but the last layers.
FIRST_BUCKET_BYTES = 2**20


def plan_buckets(
    sizes_bytes: Sequence[int], cap_bytes: int, first_cap_bytes: int = FIRST_BUCKET_BYTES
) -> list[range]:
    """Return the buckets of arrays that become ready in the order of `sizes_bytes`, as ranges of their indices.

    Neighbours share a bucket as long as their sum is within the cap. An array is never split: one above the cap
    has a bucket of its own. Every array is in one bucket; none are empty.

    Arguments:
        sizes_bytes: the size of each array, in the order in which backward makes them ready.
        cap_bytes: what a bucket holds at most, >= 1.
        first_cap_bytes: the same for the first bucket, if less.
    """
    buckets: list[range] = []
    first, filled = 0, 0
    for index, size in enumerate(sizes_bytes):
        cap = cap_bytes if buckets else min(cap_bytes, first_cap_bytes)
        if index > first and filled + size > cap:
            buckets.append(range(first, index))
            first, filled = index, 0
        filled += size
    if first < len(sizes_bytes):
        buckets.append(range(first, len(sizes_bytes)))
    return buckets
