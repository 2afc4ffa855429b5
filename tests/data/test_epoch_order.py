"""Tests of data/epoch_order.py: every record once, and never from more of the file than one group of blocks."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.epoch_order import Blocks, EpochOrder

SIZES = st.integers(1, 30)


def read_all(blocks: Blocks, seed: int = 1, epoch: int = 0) -> list[int]:
    order = EpochOrder(blocks, seed, epoch)
    return [int(record) for record in order.records(np.arange(blocks.bounds[-1]))]


@given(size=SIZES, num_records=st.integers(1, 300), num_mixed=SIZES, seed=SIZES, epoch=SIZES)
def test_records_of_an_epoch_are_each_once_and_from_one_group_at_a_time(
    size: int, num_records: int, num_mixed: int, seed: int, epoch: int
) -> None:
    found = read_all(Blocks.of_size(size, num_records, num_mixed), seed, epoch)
    assert sorted(found) == list(range(num_records))
    unread = {block: min(size, num_records - block * size) for block in range(-(-num_records // size))}
    group: set[int] = set()
    for record in found:
        group.add(record // size)
        unread[record // size] -= 1
        assert len(group) <= num_mixed
        if not any(unread[block] for block in group):  # all that was entered is read to its end
            group.clear()


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=8).filter(any), epoch=SIZES)
def test_records_of_blocks_that_are_not_mixed_come_block_by_block(sizes: list[int], epoch: int) -> None:
    found = read_all(Blocks.of_sizes(sizes), 3, epoch)
    assert sorted(found) == list(range(sum(sizes)))
    of_blocks = np.repeat(np.arange(len(sizes)), sizes)[found]
    assert np.count_nonzero(np.diff(of_blocks)) == np.count_nonzero(sizes) - 1


def test_records_at_any_places_are_those_of_the_whole_epoch() -> None:
    blocks = Blocks.of_size(3, 100, 4)
    whole = np.array(read_all(blocks))
    order = EpochOrder(blocks, 1, 0)
    for places in (np.arange(100)[::-1], np.arange(1, 100, 7), np.array([50, 50, 0, 99])):
        assert order.records(places).tolist() == whole[places].tolist()


def test_records_depend_on_seed_and_epoch() -> None:
    blocks = Blocks.of_size(4, 64, 2)
    orders = {tuple(read_all(blocks, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert read_all(blocks, 2, 2) == read_all(blocks, 2, 2)


def test_records_within_a_group_are_mixed_evenly() -> None:
    # 8 blocks of 2 mixed by 4: each record of a group is its first with probability 1/8, each block in each group
    # with probability 1/2.
    blocks = Blocks.of_size(2, 16, 4)
    firsts = np.bincount([read_all(blocks, seed)[0] for seed in range(1600)], minlength=16)
    assert np.abs(firsts - 100).max() <= 6 * np.sqrt(100)


def test_epoch_order_of_a_hundred_million_records_holds_blocks_and_a_few_groups_only() -> None:
    tracemalloc.start()
    order = EpochOrder(Blocks.of_size(1024, 100_000_000, 16), 1, 0)
    for first in range(0, 100_000_000, 9_999_999):
        order.records(np.arange(first, first + 1))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 20 << 20  # a permutation of all would take 800 MB


def test_blocks_of_a_size_end_with_what_is_left() -> None:
    assert Blocks.of_size(4, 10).bounds.tolist() == [0, 4, 8, 10]
    assert Blocks.of_size(5, 10).sizes.tolist() == [5, 5]
    assert Blocks.of_size(99, 10).sizes.tolist() == [10]
    assert Blocks.of_sizes([2, 0, 1]).bounds.tolist() == [0, 2, 2, 3]
    assert Blocks.of_size(4, 10).records(np.array([2, 0])).tolist() == [8, 9, 0, 1, 2, 3]
    with pytest.raises(AssertionError, match="at least 1"):
        Blocks.of_size(0, 10)
