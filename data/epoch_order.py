"""The order of records in a shuffled epoch: a pure function of (seed, epoch), and of which records are neighbours.

Below the sampler. Records lie in blocks, one after the other. In an epoch the blocks come in random order, and
`num_mixed` of them at a time form a group, whose records are permuted. One block of all records is a permutation of
all; the files of HDF5Data are blocks that are not mixed; blocks of a size let a big database be read nearly as it
lies on the disk, since at any time the records come from the blocks of one group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtrain.data.hash64 import Purpose, hash64

# A batch seldom touches more than two groups; more are kept for groups smaller than a batch.
_NUM_CACHED_GROUPS = 4


@dataclass(frozen=True, eq=False)
class Blocks:
    """Neighbouring records, which a shuffled epoch reads at about the same time.

    bounds: int64 (K + 1), block k has the records bounds[k] … bounds[k + 1] − 1; it may have none.
    num_mixed: how many blocks form a group, >= 1.
    """

    bounds: NDArray[np.int64]
    num_mixed: int = 1

    @classmethod
    def of_size(cls, size: int, num_records: int, num_mixed: int = 1) -> Blocks:
        """Return blocks of `size` records each, the last of what is left."""
        assert min(size, num_mixed) >= 1, f"blocks must be at least 1, got {size} and {num_mixed}"
        return cls(np.append(np.arange(0, num_records, size, dtype=np.int64), num_records), num_mixed)

    @classmethod
    def of_sizes(cls, sizes: Sequence[int]) -> Blocks:
        """Return a block for each of `sizes`, not mixed."""
        return cls(np.cumsum([0, *sizes], dtype=np.int64))

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many records each block has."""
        return np.diff(self.bounds)

    def records(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the records of the blocks `numbers`, block after block."""
        ends = self.bounds[numbers + 1].tolist()
        return np.concatenate(
            [np.arange(*each) for each in zip(self.bounds[numbers].tolist(), ends, strict=True)]
        )


class EpochOrder:
    """Say which record comes when in one epoch. Holds the order of the blocks, and of records a few groups."""

    def __init__(self, blocks: Blocks, seed: int, epoch: int) -> None:
        self._blocks = blocks
        self._seed = seed
        self._epoch = epoch
        bits = hash64(seed, Purpose.SHUFFLE_BLOCKS, epoch, np.arange(len(blocks.bounds) - 1))
        # Stable, so that even equal hashes come in one order on every machine.
        self._block_order: NDArray[np.int64] = np.argsort(bits, kind="stable")
        firsts = np.arange(0, len(self._block_order), blocks.num_mixed)
        group_sizes = np.add.reduceat(blocks.sizes[self._block_order], firsts)
        self._starts = np.cumsum(group_sizes) - group_sizes
        self._groups: dict[int, NDArray[np.int64]] = {}

    def records(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the records, counted in file order, at `places` (0 … num_records − 1) of the epoch; int64 (N,)."""
        groups = np.searchsorted(self._starts, places, side="right") - 1
        found = np.empty_like(places)
        for group in np.unique(groups).tolist():
            here = groups == group
            found[here] = self._group(group)[places[here] - self._starts[group]]
        return found

    def _group(self, group: int) -> NDArray[np.int64]:
        if group not in self._groups:
            while len(self._groups) >= _NUM_CACHED_GROUPS:
                del self._groups[next(iter(self._groups))]
            first = group * self._blocks.num_mixed
            records = self._blocks.records(self._block_order[first : first + self._blocks.num_mixed])
            bits = hash64(self._seed, Purpose.SHUFFLE, self._epoch, records)
            self._groups[group] = records[np.argsort(bits, kind="stable")]
        return self._groups[group]
