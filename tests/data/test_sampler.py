"""Tests of data/sampler.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.epoch_order import Blocks
from dtrain.data.sampler import Sampler, Shard

SIZES = st.integers(1, 40)


@pytest.mark.parametrize(
    ("world_size", "rank", "start", "batch_index", "batch_size", "records", "batches"),
    [
        (1, 0, 0, 0, 3, [0, 1, 2], [0, 1, 2]),
        (1, 0, 0, 2, 3, [6, 7, 8], [6, 7, 8]),
        (1, 0, 5, 0, 3, [5, 6, 7], [5, 6, 7]),
        (2, 0, 0, 0, 3, [0, 2, 4], [0, 1, 2]),
        (2, 1, 0, 0, 3, [1, 3, 5], [3, 4, 5]),
        (2, 0, 0, 1, 3, [6, 8, 10], [6, 7, 8]),
        (2, 1, 0, 1, 3, [7, 9, 11], [9, 10, 11]),
        (2, 1, 5, 1, 3, [12, 14, 16], [14, 15, 16]),
        (3, 2, 0, 0, 2, [2, 5], [4, 5]),
        (3, 0, 100, 4, 1, [112], [112]),
        (4, 3, 0, 0, 1, [3], [3]),
        (4, 1, 8, 2, 2, [25, 29], [26, 27]),
    ],
)
def test_shard_of_a_rank_deals_the_tables_positions(
    world_size: int,
    rank: int,
    start: int,
    batch_index: int,
    batch_size: int,
    records: list[int],
    batches: list[int],
) -> None:
    shard = Shard(rank, world_size)
    assert shard.deal_records(start, batch_index, batch_size).tolist() == records
    assert shard.deal_batches(start, batch_index, batch_size).tolist() == batches


@given(start=st.integers(0, 1 << 40), batch_index=SIZES, batch_size=SIZES, world_size=SIZES)
def test_deal_records_of_all_ranks_is_one_ranks_batch(
    start: int, batch_index: int, batch_size: int, world_size: int
) -> None:
    dealt = [
        Shard(rank, world_size).deal_records(start, batch_index, batch_size) for rank in range(world_size)
    ]
    alone = Shard().deal_records(start, batch_index, world_size * batch_size)
    assert np.stack(dealt, axis=1).ravel().tolist() == alone.tolist()


@given(start=st.integers(0, 1 << 40), num_batches=SIZES, batch_size=SIZES, world_size=SIZES)
def test_deal_batches_of_all_ranks_is_each_batch_of_one_rank_once(
    start: int, num_batches: int, batch_size: int, world_size: int
) -> None:
    dealt = {
        tuple(Shard(rank, world_size).deal_batches(start, batch_index, batch_size).tolist())
        for rank in range(world_size)
        for batch_index in range(Shard(rank, world_size).count_batches(num_batches))
    }
    alone = {tuple(Shard().deal_batches(start, index, batch_size).tolist()) for index in range(num_batches)}
    assert dealt == alone


@given(num_batches=st.integers(0, 100), world_size=SIZES)
def test_count_batches_over_all_ranks_adds_up(num_batches: int, world_size: int) -> None:
    counts = [Shard(rank, world_size).count_batches(num_batches) for rank in range(world_size)]
    assert sum(counts) == num_batches
    assert max(counts) - min(counts) <= 1


@given(
    num_records=SIZES,
    batch_size=SIZES,
    world_size=st.integers(1, 5),
    shuffle=st.booleans(),
    block_size=st.none() | SIZES,
)
def test_records_of_all_ranks_are_each_record_once_an_epoch(
    num_records: int, batch_size: int, world_size: int, shuffle: bool, block_size: int | None
) -> None:
    blocks = Blocks.of_size(block_size, num_records, 2) if block_size else None
    num_iterations = -(-3 * num_records // (batch_size * world_size))
    seen: list[tuple[int, int]] = []
    for rank in range(world_size):
        sampler, shard = Sampler(num_records, 5, shuffle, blocks), Shard(rank, world_size)
        for iteration in range(num_iterations):
            seen += zip(*sampler.records(shard.deal_records(0, iteration, batch_size)), strict=True)
    for epoch in range(3):
        assert sorted(index for found, index in seen if found == epoch) == list(range(num_records))


def test_records_in_file_order_wrap_at_the_end() -> None:
    epochs, indices = Sampler(3).records(np.array([0, 2, 3, 7]))
    assert (epochs.tolist(), indices.tolist()) == ([0, 0, 1, 2], [0, 2, 0, 1])


def read_epoch(sampler: Sampler, epoch: int) -> list[int]:
    first = epoch * sampler.num_records
    indices: list[int] = sampler.records(np.arange(first, first + sampler.num_records))[1].tolist()
    return indices


def test_records_shuffled_depend_on_seed_and_epoch_only() -> None:
    sampler = Sampler(50, seed=1, shuffle=True)
    forwards = [read_epoch(sampler, epoch) for epoch in range(12)]
    backwards = [read_epoch(Sampler(50, seed=1, shuffle=True), epoch) for epoch in reversed(range(12))]
    assert forwards == backwards[::-1]
    assert read_epoch(sampler, 0) == forwards[0]  # after its permutation left the cache
    orders = [*forwards, read_epoch(Sampler(50, seed=2, shuffle=True), 0)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_records_shuffled_are_in_the_order_that_snapshots_of_earlier_runs_rely_on() -> None:
    # The permutation that sorts splitmix64's hashes of (seed, 1, epoch, record), computed apart in plain integers.
    def mix(word: int) -> int:
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ word >> 27) * 0x94D049BB133111EB % 2**64
        return word ^ word >> 31

    def bits(seed: int, epoch: int, record: int) -> int:
        mixed = 0
        for word in (seed, 1, epoch, record):
            mixed = mix(mixed ^ word)
        return mixed

    sampler = Sampler(50, seed=6, shuffle=True)
    for epoch in range(3):
        expected = sorted(range(50), key=lambda record, epoch=epoch: bits(6, epoch, record))  # type: ignore[misc]
        assert read_epoch(sampler, epoch) == expected


def test_records_shuffled_spread_evenly() -> None:
    first_places = [read_epoch(Sampler(20, seed=seed, shuffle=True), 0).index(0) for seed in range(2000)]
    counts = np.bincount(first_places, minlength=20)
    assert np.abs(counts - 100).max() <= 6 * np.sqrt(100)


def test_sampler_of_blocks_with_other_records_asserts() -> None:
    with pytest.raises(AssertionError, match="must have 9 records"):
        Sampler(9, shuffle=True, blocks=Blocks.of_size(4, 8))


@pytest.mark.parametrize(("rank", "world_size"), [(1, 1), (-1, 2), (0, 0)])
def test_shard_of_no_such_rank_asserts(rank: int, world_size: int) -> None:
    with pytest.raises(AssertionError, match="is not one of"):
        Shard(rank, world_size)
