from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.reference.lowering import Lowering


def test_lowering_of_a_row_of_numbers_is_its_windows() -> None:
    lowering = Lowering(np, (4,), (2,), (1,), (1,), (2,), (4,))
    columns = np.full(lowering.columns_shape(1, 1), np.nan)
    lowering.lower(np.array([[[1.0, 2, 3, 4]]]), columns)
    # padded: 0 1 2 3 4 0; each filter sees two numbers, two apart
    assert columns.reshape(2, 4).tolist() == [[0, 1, 2, 3], [2, 3, 4, 0]]


def test_sum_back_of_ones_counts_the_windows_over_each_place() -> None:
    lowering = Lowering(np, (5,), (3,), (2,), (0,), (1,), (2,))
    images = np.full((1, 1, 5), np.nan)
    lowering.sum_back(np.ones(lowering.columns_shape(1, 1)), images)
    assert images.ravel().tolist() == [1, 1, 2, 1, 1]


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "output"),
    [((1, 1), 1, 0, (3, 4)), ((3, 2), 2, 1, (2, 3)), ((1, 1), 2, 0, (2, 2))],
)
def test_sum_back_is_the_transpose_of_lower(
    kernel: tuple[int, int], stride: int, pad: int, output: tuple[int, int]
) -> None:
    lowering = Lowering(np, (3, 4), kernel, (stride, stride), (pad, pad), (1, 1), output)
    random = np.random.default_rng(0)
    images = random.random((3, 2, 3, 4))
    columns = random.random(lowering.columns_shape(2, 3))
    lowered, raised = np.empty_like(columns), np.empty_like(images)
    lowering.lower(images, lowered)
    lowering.sum_back(columns, raised)
    assert (lowered * columns).sum() == pytest.approx((raised * images).sum(), rel=1e-12)


def test_lower_after_sum_back_still_sees_zeros_beyond_the_border() -> None:
    lowering = Lowering(np, (2,), (3,), (1,), (1,), (1,), (2,))
    columns = np.ones(lowering.columns_shape(1, 1))
    lowering.sum_back(columns, np.empty((1, 1, 2)))
    lowering.lower(np.array([[[5.0, 7]]]), columns)
    assert columns.reshape(3, 2).tolist() == [[0, 5], [5, 7], [7, 0]]
