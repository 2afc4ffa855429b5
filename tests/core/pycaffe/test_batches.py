from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.errors import UserError
from dtrain.core.pycaffe.batches import BatchResults, count_items, split_batches


@pytest.mark.parametrize(
    ("num_items", "expected"),
    [(0, []), (1, [[1, 0]]), (2, [[1, 2]]), (3, [[1, 2], [3, 0]]), (4, [[1, 2], [3, 4]])],
)
def test_split_batches_fills_the_last_up_with_zeros(num_items: int, expected: list[list[int]]) -> None:
    batches = list(split_batches({"a": np.arange(1, num_items + 1), "b": np.ones((num_items, 3))}, 2))
    assert [batch["a"].tolist() for batch in batches] == expected
    assert [batch["b"].sum(axis=1).tolist() for batch in batches] == [
        [3.0 * (x > 0) for x in e] for e in expected
    ]


def test_split_batches_of_no_arrays_are_none() -> None:
    assert list(split_batches({}, 2)) == []


@pytest.mark.parametrize(
    "arrays",
    [{"a": np.zeros(2), "b": np.zeros((3, 2))}, {"a": np.zeros(())}, {"a": np.zeros(()), "b": np.zeros(1)}],
)
def test_count_items_of_arrays_that_disagree_names_their_shapes(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(UserError, match="all arrays must have as many items along their first axis, got a "):
        count_items(arrays)


def test_batch_results_are_copies_joined_and_cut_to_the_items() -> None:
    results, values = BatchResults(), np.zeros((2, 1))
    for start in (0, 2):
        values[...] = [[start], [start + 1]]
        results.add(
            {"by_item": values, "scalar": np.float32(start).reshape(()), "per_class": np.full(3, start)}
        )
    joined = results.joined(batch_size=2, num_items=3)
    assert joined["by_item"].tolist() == [[0], [1], [2]]
    assert joined["scalar"].tolist() == [0, 2]
    assert joined["per_class"].tolist() == [0, 0, 0, 2, 2, 2]
