from __future__ import annotations

import numpy as np
import pytest

from dtrain.core.engines.reference import depthwise
from dtrain.core.engines.reference.depthwise import DepthwiseCorrelation, is_depthwise
from dtrain.core.engines.reference.engine import ReferenceEngine
from dtrain.core.engines.reference.phases import Phases


@pytest.mark.parametrize(
    ("num_fine", "num_coarse", "group", "kernel", "expected"),
    [
        (8, 8, 8, (3, 3), True),
        (8, 16, 8, (3,), True),
        (8, 24, 8, (3, 3), False),  # three filters a channel: the matrix product is large enough
        (8, 8, 4, (3, 3), False),
        (8, 8, 8, (1, 1), False),  # nothing is shifted
        (1, 1, 1, (3, 3), False),
    ],
)
def test_is_depthwise_with_few_filters_a_channel(
    num_fine: int, num_coarse: int, group: int, kernel: tuple[int, ...], expected: bool
) -> None:
    assert is_depthwise(num_fine, num_coarse, group, kernel) is expected


def block_sizes(block_values: int, num_images: int, num_channels: int) -> list[tuple[int, int]]:
    """Return how many images and channels each block has, for planes of 6 × 6 and 3 × 3 filters."""
    phases = Phases((6, 6), (3, 3), (1, 1), (0, 0), (1, 1))
    depthwise.BLOCK_VALUES = block_values
    correlation = DepthwiseCorrelation(ReferenceEngine(), phases, (4, 4), num_channels, num_channels)
    images = np.empty((num_images, num_channels, 6, 6))
    return [images[i, c].shape[:2] for i, c, _ in correlation._blocks(images)]


def test_depthwise_block_takes_images_first_and_then_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depthwise, "BLOCK_VALUES", 0)  # put back after the test
    values_per_plane = 36 * (1 + 3 + 1 + 3)
    assert block_sizes(1, 2, 2) == [(1, 1)] * 4
    assert block_sizes(values_per_plane * 2, 3, 2) == [(2, 1), (2, 1), (1, 1), (1, 1)]
    assert block_sizes(values_per_plane * 6, 3, 5) == [(3, 2), (3, 2), (3, 1)]
    assert block_sizes(1 << 30, 3, 5) == [(3, 5)]
    assert block_sizes(1 << 30, 0, 5) == []


@pytest.mark.parametrize("block_values", [1, 5000, 1 << 20], ids=["1", "some", "all"])
@pytest.mark.parametrize("num_filters", [1, 2])
def test_depthwise_in_blocks_of_any_size_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, block_values: int, num_filters: int
) -> None:
    monkeypatch.setattr(depthwise, "BLOCK_VALUES", block_values)
    random = np.random.default_rng(3)
    num_coarse = 7 * num_filters
    fine, coarse = random.random((5, 7, 6, 6)), random.random((5, num_coarse, 4, 4))
    weight, bias = random.random((num_coarse, 1, 3, 3)), random.random(num_coarse)
    windows = np.lib.stride_tricks.sliding_window_view(fine, (3, 3), axis=(2, 3))
    windows = windows.repeat(num_filters, axis=1)
    phases = Phases((6, 6), (3, 3), (1, 1), (0, 0), (1, 1))
    correlation = DepthwiseCorrelation(ReferenceEngine(), phases, (4, 4), 7, num_coarse)

    found = np.empty_like(coarse)
    correlation.correlate(fine, weight, None, found)
    expected = np.einsum("ncpqrs,crs->ncpq", windows, weight[:, 0])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    correlation.correlate(fine, weight, bias, found)
    np.testing.assert_allclose(found, expected + bias[:, None, None], rtol=1e-12)

    weight_diff = np.ones_like(weight)
    correlation.add_weight_gradient(fine, coarse, weight_diff)
    np.testing.assert_allclose(
        weight_diff[:, 0] - 1, np.einsum("ncpqrs,ncpq->crs", windows, coarse), rtol=1e-12
    )

    spread = np.empty_like(fine)
    correlation.spread(coarse, weight, spread)
    assert (spread * fine).sum() == pytest.approx((expected * coarse).sum(), rel=1e-12)
