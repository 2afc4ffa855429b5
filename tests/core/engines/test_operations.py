"""What the specs of operations leave to a function."""

from __future__ import annotations

import pytest

from dtrain.core.engines.operations import one_batch_axis


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((8, 3, 5, 7), 1, (8, 3, 5, 7)),
        ((2, 4, 3, 5, 7), 2, (8, 3, 5, 7)),
        ((3, 5), 0, (1, 3, 5)),
        ((0, 4, 3, 5), 2, (0, 3, 5)),
    ],
)
def test_one_batch_axis_joins_what_is_before_the_channels(
    shape: tuple[int, ...], axis: int, expected: tuple[int, ...]
) -> None:
    assert one_batch_axis(shape, axis) == expected
