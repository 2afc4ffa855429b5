from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dtrain.core.engines.operations import ConcatSpec


@pytest.mark.parametrize(
    ("shapes", "axis"),
    [
        (((2, 1, 3), (2, 4, 3)), 1),
        (((2, 3), (1, 3), (2, 3)), 0),
        (((2, 2, 1), (2, 2, 2)), 2),
        (((2, 3),), 1),
        (((0, 2), (0, 1)), 1),
    ],
)
def test_concat_forward_and_backward_move_each_part(
    rig: Any, shapes: tuple[tuple[int, ...], ...], axis: int
) -> None:
    xs = [rig.normal(*shape) for shape in shapes]
    joined = np.concatenate(xs, axis)
    y_diff = rig.normal(*joined.shape)
    y, x_diffs = rig.run_many_to_one(ConcatSpec(shapes, axis), xs, y_diff)
    rig.expect(y, joined)
    rig.expect(np.concatenate(x_diffs, axis), y_diff)


def test_concat_backward_leaves_what_is_not_wanted(rig: Any) -> None:
    shapes = ((1, 2), (1, 3))
    _, x_diffs = rig.run_many_to_one(
        ConcatSpec(shapes, 1), [np.zeros(s) for s in shapes], np.ones((1, 5)), [False, True]
    )
    assert np.isnan(x_diffs[0]).all()
    assert x_diffs[1].tolist() == [[1, 1, 1]]
