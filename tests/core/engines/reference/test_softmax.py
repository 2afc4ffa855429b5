from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.core.engines.operations import SoftmaxSpec

Array = NDArray[np.float64]


def normalise(x: Array, axis: int) -> Array:
    """Return exp(x) / Σ exp(x), which is fine for small numbers."""
    exponentials = np.exp(x)
    result: Array = exponentials / exponentials.sum(axis=axis, keepdims=True)
    return result


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((4, 3), 1), ((2, 3, 2, 4), 1), ((2, 3, 4), 0), ((2, 3, 4), 2), ((5, 1), 1), ((0, 3), 1), ((3, 0), 1)],
)
def test_softmax_forward_and_backward_follow_the_formula(
    rig: Any, shape: tuple[int, ...], axis: int, in_place: bool
) -> None:
    x, y_diff = rig.normal(*shape), rig.normal(*shape)
    y, x_diff = rig.run_unary(SoftmaxSpec(shape, axis), x, y_diff, in_place)
    rig.expect(y, normalise(x, axis))
    rig.expect_gradient(lambda x: normalise(x, axis), x, y_diff, x_diff)


def test_softmax_of_large_values_does_not_overflow(rig: Any) -> None:
    y, _ = rig.run_unary(SoftmaxSpec((2, 2), 1), np.array([[1e38, 1e38], [-1e38, 1e38]]), np.ones((2, 2)))
    assert y.tolist() == [[0.5, 0.5], [0, 1]]
