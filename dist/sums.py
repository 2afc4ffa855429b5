"""Sums of arrays of several ranks in the order of the ranks, for communicators that add up by themselves.

In the flow prototxt → graph → net → solver → communicator → snapshot these are the sums that come out the same
whatever carries the values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtrain.dist.communicator import Array

# Lets numpy say nothing of sums that are too large, and infinite. A with block takes twice as long.
without_a_word = np.errstate(over="ignore", invalid="ignore")


@without_a_word
def sum_in_order(parts: Sequence[Array], out: Array) -> None:
    """Do as add_in_order, without a word if a sum is too large, and infinite."""
    add_in_order(parts, out)


def add_in_order(parts: Sequence[Array], out: Array) -> None:
    """Overwrite `out` with ((parts[0] + parts[1]) + parts[2]) + …

    Two bytes wide, `out` is rounded once, after summing in float32.

    Arguments:
        parts: (n,) each, of one dtype; parts[0] may be `out`, others must not overlap it.
        out: (n,), of their dtype or, where they are float32, of half the width.
    """
    if len(parts) == 1:
        out[...] = parts[0]
    elif out.itemsize == 2:  # one of HALVES; to ask for that takes three times as long
        total = parts[0].astype(np.float32)
        for part in parts[1:]:
            total += part
        out[...] = total
    else:
        np.add(parts[0], parts[1], out)
        for part in parts[2:]:
            np.add(out, part, out)


def slice_start(num_elements: int, world_size: int, rank: int) -> int:
    """Return where the slice of `rank` starts in (num_elements,); at its end for rank = world_size."""
    return num_elements * rank // world_size


def slice_bounds(num_elements: int, world_size: int) -> list[int]:
    """Return where the slice of each rank starts in (num_elements,), and at last num_elements."""
    return [slice_start(num_elements, world_size, rank) for rank in range(world_size + 1)]
