from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.dist.buckets import plan_buckets

CASES = {
    "nothing": ([], 10, 4, []),
    "one of any size": ([99], 10, 4, [[0]]),
    "the first is small": ([2, 2, 2, 2, 2, 2], 6, 4, [[0, 1], [2, 3, 4], [5]]),
    "a small cap holds for the first too": ([2, 2, 2], 2, 100, [[0], [1], [2]]),
    "too large ones stand alone": ([1, 50, 1, 1], 10, 4, [[0], [1], [2, 3]]),
    "exactly full": ([4, 5, 5, 1], 10, 4, [[0], [1, 2], [3]]),
    "empty ones fit anywhere": ([0, 4, 0, 10, 0], 10, 4, [[0, 1, 2], [3, 4]]),
}


@pytest.mark.parametrize(("sizes", "cap", "first_cap", "expected"), CASES.values(), ids=CASES)
def test_plan_buckets_gives(sizes: list[int], cap: int, first_cap: int, expected: list[list[int]]) -> None:
    assert [list(bucket) for bucket in plan_buckets(sizes, cap, first_cap)] == expected


@given(st.lists(st.integers(0, 50)), st.integers(1, 60), st.integers(1, 60))
def test_plan_buckets_covers_all_in_order_within_the_cap(sizes: list[int], cap: int, first_cap: int) -> None:
    buckets = plan_buckets(sizes, cap, first_cap)
    assert [index for bucket in buckets for index in bucket] == list(range(len(sizes)))
    for number, bucket in enumerate(buckets):
        limit = cap if number else min(cap, first_cap)
        assert len(bucket) >= 1
        assert len(bucket) == 1 or sum(sizes[k] for k in bucket) <= limit
        if number:  # what begins a bucket would not have fitted into the one before
            before = buckets[number - 1]
            assert sum(sizes[k] for k in before) + sizes[bucket[0]] > (
                cap if number > 1 else min(cap, first_cap)
            )
