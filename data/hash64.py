"""Random numbers that are a pure function of (seed, purpose, epoch, record).

The shuffled order of an epoch and the random crops and mirrors of a record are drawn here, so they depend on
nothing else: not on the number of ranks or readers, not on restarts, not on numpy's version. The mixer is the
finaliser of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), applied
once for each word.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_WORD_MASK = 0xFFFFFFFFFFFFFFFF


class Purpose(IntEnum):
    """What a random number is for: draws for different purposes are independent."""

    SHUFFLE = 1
    CROP_ROW = 2
    CROP_COLUMN = 3
    MIRROR = 4
    SHUFFLE_BLOCKS = 5
    SKIP = 6
    WINDOW = 7
    MADE_UP_PLACE = 8
    MADE_UP_VALUE = 9


def hash64(seed: int, purpose: Purpose, epochs: ArrayLike, indices: ArrayLike) -> NDArray[np.uint64]:
    """Return 64 random bits for each record.

    Arguments:
        seed: any integer; its low 64 bits count.
        purpose: what the bits are for.
        epochs, indices: integers or integer arrays that broadcast to one shape.
    Result: uint64 of that shape, at least one axis.
    """
    mixed = np.zeros(1, np.uint64)
    for word in (seed & _WORD_MASK, int(purpose), epochs, indices):
        mixed = _mix(mixed ^ np.asarray(word).astype(np.uint64))
    return mixed


def draw_below(bits: NDArray[np.uint64], limit: int) -> NDArray[np.int64]:
    """Return integers in 0 … limit − 1, as good as uniform, one for each word of `bits`; limit < 2³²."""
    return ((bits >> np.uint64(32)) * np.uint64(limit) >> np.uint64(32)).astype(np.int64)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    words = words + _INCREMENT
    words = (words ^ (words >> np.uint64(30))) * _MULTIPLIERS[0]
    words = (words ^ (words >> np.uint64(27))) * _MULTIPLIERS[1]
    return words ^ (words >> np.uint64(31))
