"""Random numbers that depend on what they are for and not on what was drawn before.

Each use (a layer's filler, a dropout mask of one pass) has a generator of its own, a counter-based Philox
keyed by (seed, name) and positioned by (pass, rank). So a resumed run draws what an undisturbed one draws with
no state to save but the seed and the number of passes, and adding a layer does not change its neighbours.
"""

from __future__ import annotations

import zlib

import numpy as np


class RandomStreams:
    """The random numbers of one net on one rank.

    seed: any integer >= 0, the same on all ranks. rank: 0 … world_size − 1. pass_index: the number of TRAIN
    forward passes so far; the net counts it up, resuming sets it. num_given: generators of passes so far.
    """

    def __init__(self, seed: int, rank: int = 0) -> None:
        self.seed = seed
        self.rank = rank
        self.pass_index = 0
        self.num_given = 0

    def for_filler(self, name: str) -> np.random.Generator:
        """Return the generator that fills the param called `name`: the same on every rank."""
        return self._generator(f"filler:{name}", (0, 0))

    def for_pass(self, name: str) -> np.random.Generator:
        """Return the generator of the layer called `name` in this forward pass on this rank."""
        self.num_given += 1
        return self._generator(f"pass:{name}", (self.pass_index, self.rank))

    def _generator(self, purpose: str, position: tuple[int, int]) -> np.random.Generator:
        # An array: of a tuple with a seed of 64 bits numpy would make floats.
        key = np.array([self.seed & 0xFFFFFFFFFFFFFFFF, zlib.crc32(purpose.encode())], np.uint64)
        # The low word counts within a stream; pass and rank sit above it, so that streams never meet.
        return np.random.Generator(np.random.Philox(key=key, counter=(0, 0, *position)))
