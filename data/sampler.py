"""Which record is read when: the endless stream of records, and how ranks share it.

A data layer's records, epoch after epoch, form one endless stream, in which a position is a number that all
ranks share. The sampler says which record stands at a position, the shard which positions a rank reads. Both
are pure: the order depends on (seed, epoch, index) and on nothing else. So N ranks with batch b read,
iteration for iteration, what one rank with batch N·b reads, and a resumed run goes on where the last stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dtrain.data.epoch_order import Blocks, EpochOrder

# A batch seldom touches more than two epochs; more are kept for data sets smaller than a batch.
_NUM_CACHED_EPOCHS = 4


class Sampler:
    """Say which record stands at each position of the stream: position p is in epoch p // num_records.

    Arguments:
        num_records: records of one epoch, >= 1.
        seed: any integer; counts only when shuffling.
        shuffle: False: file order in every epoch; True: a permutation of its own for each (seed, epoch).
        blocks: which records stay near each other when shuffling; by default all are one block.
    """

    def __init__(
        self, num_records: int, seed: int = 0, shuffle: bool = False, blocks: Blocks | None = None
    ) -> None:
        assert num_records >= 1, f"a sampler needs at least one record, got {num_records}"
        self.num_records = num_records
        self.seed = seed
        self.shuffle = shuffle
        self._blocks = blocks or Blocks.of_size(num_records, num_records)
        assert self._blocks.bounds[-1] == num_records, f"blocks must have {num_records} records together"
        self._orders: dict[int, EpochOrder] = {}

    def reseed(self, seed: int) -> None:
        """Shuffle by another seed from now on."""
        self.seed = seed
        self._orders.clear()

    def records(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (epochs, indices), both int64 of the shape of `positions` (each >= 0).

        indices count records in file order, 0 … num_records − 1.
        """
        epochs, indices = np.divmod(positions, self.num_records)
        if self.shuffle:
            for epoch in np.unique(epochs).tolist():
                here = epochs == epoch
                indices[here] = self._order(epoch).records(indices[here])
        return epochs, indices

    def _order(self, epoch: int) -> EpochOrder:
        if epoch not in self._orders:
            while len(self._orders) >= _NUM_CACHED_EPOCHS:
                del self._orders[min(self._orders)]
            self._orders[epoch] = EpochOrder(self._blocks, self.seed, epoch)
        return self._orders[epoch]


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's share of the stream: rank of world_size."""

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.world_size, f"rank {self.rank} is not one of {self.world_size}"

    def deal_records(self, start: int, batch_index: int, batch_size: int) -> NDArray[np.int64]:
        """Return the positions of this rank's batch, records dealt round robin (TRAIN).

        start + batch_index·N·b + rank + N·(0 … b−1): the batches of all N ranks with batch_size b are
        together what one rank reads with batch_size N·b, and each is an even sample of it.
        """
        first = start + batch_index * self.world_size * batch_size + self.rank
        return first + self.world_size * np.arange(batch_size, dtype=np.int64)

    def deal_batches(self, start: int, batch_index: int, batch_size: int) -> NDArray[np.int64]:
        """Return the positions of this rank's batch, whole batches dealt round robin (TEST).

        start + (batch_index·N + rank)·b + (0 … b−1): each batch is one that a single rank reads too, so that
        every output is the same, also one that is no mean over the records of its batch.
        """
        first = start + (batch_index * self.world_size + self.rank) * batch_size
        return first + np.arange(batch_size, dtype=np.int64)

    def count_batches(self, num_batches: int) -> int:
        """Return how many of `num_batches` deal_batches gives this rank; two ranks' differ by one at most."""
        return (num_batches - self.rank + self.world_size - 1) // self.world_size
